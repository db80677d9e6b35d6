"""What mlx-vlm's prefix cache gives back is answered as if the prompt were new."""

from __future__ import annotations

import concurrent.futures

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.parity import reference
from tests.hosts.server import serve

ID = "mlx_vlm.apc_exact"
TEXT = tiny.prompt(100, seed=2)
OTHER = tiny.prompt(30, seed=1)

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def new_cache():
    return pytest.importorskip("mlx_vlm.apc").APCManager(num_blocks=64)


class TestApcExact(PatchContract):
    id = ID

    def untouched(self):
        import mlx.core as mx
        from mlx_vlm.models.cache import KVCache

        manager, caches = new_cache(), [KVCache()]
        caches[0].update_and_fetch(mx.ones((1, 1, 40, 4)), mx.ones((1, 1, 40, 4)))
        stored = manager.store_exact_cache(TEXT[:40], caches)
        found, length = manager.lookup_exact_cache(TEXT)
        return [stored, length, found[0].state, manager.lookup_exact_cache(OTHER)]


@pytest.fixture(scope="module", params=tiny.SHAPES)
def loaded(request, tmp_path_factory):
    new_cache()  # or skip
    return answers.load(request.param, tmp_path_factory.mktemp(request.param))


FOLLOWING = {
    "a turn more": lambda prompt, answer: prompt + answer + OTHER[:10],
    "one token more": lambda prompt, answer: prompt + OTHER[:1],
    "the same": lambda prompt, answer: prompt,
    "a fork": lambda prompt, answer: prompt[:-3] + OTHER,
    "an early fork": lambda prompt, answer: prompt[:5] + OTHER,
    "shorter": lambda prompt, answer: prompt[:-2],
}


CASES = [(length, following, 2048) for length in (8, 70) for following in FOLLOWING]


@pytest.mark.parametrize("length, following, step", [*CASES, (70, "a turn more", 8)])
def test_a_prompt_is_answered_as_if_it_were_new(loaded, length, following, step):
    with patched(ID):
        how = {"apc_manager": new_cache(), "prefill_step_size": step}
        prompt = TEXT[:length]
        following = FOLLOWING[following](prompt, loaded.answer(prompt, 6, **how))
        for _ in range(2):
            assert loaded.answer(following, **how) == loaded.answer(following)


def test_what_was_seen_is_reused(loaded):
    with patched(ID):
        manager = new_cache()
        loaded.answer(TEXT[:70], 6, apc_manager=manager)
        loaded.answer(TEXT, 6, apc_manager=manager)
        assert manager.stats_snapshot()["matched_tokens"] > 32


def test_a_cache_that_was_written_without_the_patch_is_left_alone(loaded, tmp_path):
    prompt, manager = TEXT[:40], new_cache()
    with stock(ID):
        loaded.answer(prompt, 6, apc_manager=manager)
    with patched(ID):
        assert loaded.answer(TEXT[:60], apc_manager=manager) == loaded.answer(TEXT[:60])


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_answer_is_that_of_transformers(shape, tmp_path):
    manager, expected = new_cache(), reference(shape)
    prompt, greedy = expected["ids_40"].tolist(), expected["greedy_40"].tolist()
    loaded = answers.load(shape, tmp_path)
    with patched(ID):
        assert loaded.answer(prompt[:37], 1, apc_manager=manager)
        assert loaded.answer(prompt, 6, apc_manager=manager) == greedy[:6]
        assert loaded.answer(prompt + greedy[:6], apc_manager=manager) == greedy[6:18]


@pytest.mark.parametrize("shape", ["moe", "dense"])
def test_the_server_answers_as_it_does_without_the_cache(shape, tmp_path, monkeypatch):
    new_cache()  # or skip
    model = answers.save(shape, tmp_path)
    question = {"role": "user", "content": "a question that is longer than the window is"}
    said = [{"role": "assistant", "content": "so"}, {"role": "user", "content": "and what else?"}]
    turns = [[question], [question], [question, *said], [question, *said, *said], [said[1]]]

    def ask(post, messages):
        body = {"model": str(model), "messages": messages, "max_tokens": 6, "temperature": 0}
        return post("/v1/chat/completions", body)["choices"][0]["message"]

    with patched(ID), serve("mlx_vlm", model) as post:
        expected = [ask(post, turn) for turn in turns]
    monkeypatch.setenv("APC_ENABLED", "1")
    with patched(ID), serve("mlx_vlm", model) as post:
        assert [ask(post, turn) for turn in turns] == expected
        with concurrent.futures.ThreadPoolExecutor(len(turns)) as pool:
            for _ in range(2):
                assert list(pool.map(lambda turn: ask(post, turn), turns)) == expected
