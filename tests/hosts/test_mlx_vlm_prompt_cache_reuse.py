"""A conversation in a ``PromptCacheState`` is answered as if it were new, and reused if it can be.

The answers to the stored prompts are those of transformers.
"""

from __future__ import annotations

import importlib

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.parity import reference

ID = "mlx_vlm.prompt_cache_reuse"
OTHER = tiny.prompt(12, seed=1)

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def new_state():
    found = getattr(importlib.import_module("mlx_vlm.generate"), "PromptCacheState", None)
    if found is None:
        pytest.skip("this mlx-vlm keeps no prompt caches")
    return found()


class TestPromptCacheReuse(PatchContract):
    id = ID

    def untouched(self):
        from mlx_vlm.models.cache import KVCache, RotatingKVCache

        state, seen = new_state(), []
        for size in (5, 40):  # a conversation that grows, within the window and past it
            caches = [KVCache(), RotatingKVCache(16)]
            state.update(list(range(size)), caches)
            for cache in caches:
                cache.update_and_fetch(mx.zeros((1, 1, size, 4)), mx.zeros((1, 1, size, 4)))
            seen.append(state.find_prefix_length(list(range(size + 3))))
            seen.append(state.find_prefix_length([size, 1, 2]))
        caches = [KVCache(), KVCache()]
        state.update([1, 2, 3], caches)
        for cache in caches:
            cache.update_and_fetch(mx.zeros((1, 1, 3, 4)), mx.zeros((1, 1, 3, 4)))
        return [*seen, state.find_prefix_length([1, 2, 4])]


@pytest.fixture(scope="module", params=tiny.SHAPES)
def subject(request, tmp_path_factory):
    new_state()  # or skip
    shape = request.param
    return answers.load(shape, tmp_path_factory.mktemp(shape)), reference(shape)


def turn(subject, length):
    """A prompt, its answer and what follows it, by transformers."""
    _, expected = subject
    greedy = expected[f"greedy_{length}"].tolist()
    return expected[f"ids_{length}"].tolist(), greedy[:6], greedy[6:]


@pytest.mark.parametrize("length", [8, 40])
@pytest.mark.parametrize("more", [1, 4])
def test_a_conversation_that_grows_is_reused_and_right(subject, length, more):
    prompt, answer, following = turn(subject, length)
    state = new_state()
    with patched(ID):
        assert subject[0].answer(prompt, 6, prompt_cache_state=state) == answer
        caches = state.cache
        grown = prompt + answer + following[:more]
        said = subject[0].answer(grown, prompt_cache_state=state)
        assert said == following[more : more + 12]
        assert state.cache is caches  # a fresh run makes its own
        assert len(state.token_ids) == caches[0].offset == len(grown) + 12


@pytest.mark.parametrize("length", [8, 40])
@pytest.mark.parametrize("kept", [3, -3, 0, 4])  # of the prompt, or of the answer
def test_a_fork_is_answered_as_a_fresh_run(subject, length, kept):
    prompt, answer, _ = turn(subject, length)
    held = prompt[:kept] if kept in (3, -3) else prompt + answer[:kept]
    fork = held + OTHER
    fresh = subject[0].answer(fork)
    with patched(ID):
        state = new_state()
        subject[0].answer(prompt, 6, prompt_cache_state=state)
        caches = state.cache
        assert subject[0].answer(fork, prompt_cache_state=state) == fresh
        assert (state.cache is caches) == (length == 8)  # within the window it is cut back
        # and goes on from there
        further = fork + fresh + OTHER[:5]
        again = subject[0].answer(further, prompt_cache_state=state)
        assert again == subject[0].answer(further)


@pytest.mark.parametrize("length", [8, 40])
def test_the_same_prompt_and_a_shorter_one_are_answered_as_fresh_runs(subject, length):
    prompt, answer, _ = turn(subject, length)
    with patched(ID):
        state = new_state()
        for ids in (prompt, prompt, prompt[:-2], prompt + answer, prompt):
            assert subject[0].answer(ids, prompt_cache_state=state) == subject[0].answer(ids)


@pytest.mark.parametrize("length", [4, 40])
def test_an_answer_that_was_stopped_spoils_nothing(subject, length):
    prompt = tiny.prompt(length)

    def after_a_stop():
        state = new_state()
        said = subject[0].answer(prompt, 2, prompt_cache_state=state)
        fork = prompt[:2] + OTHER[: length - 1]  # with the first token as long as before
        stopped = subject[0].stream(fork, prompt_cache_state=state)
        next(stopped)
        stopped.close()
        further = prompt + said + OTHER[:4]
        return subject[0].answer(further, 6, prompt_cache_state=state), further

    with patched(ID):
        again, further = after_a_stop()
    assert again == subject[0].answer(further, 6)
    if length == 4:
        with stock(ID):
            assert after_a_stop()[0] != again
