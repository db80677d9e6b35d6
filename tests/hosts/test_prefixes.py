"""What is kept of conversations, with the models and caches of both families."""

from __future__ import annotations

import gc
import importlib
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.gemma4.prefix_cuts import CHANNEL_ID, TURN_ID, cuts
from mlx_gemma4_patches.gemma4.prefix_store import PrefixStore

_STEP = 20  # tokens; the window is 16
_SYSTEM, _USER, _MODEL = 301, 302, 303
_OPEN = [TURN_ID, _MODEL, CHANNEL_ID, 300, 101]  # with an empty thought


def _mlx_lm(shape: str) -> Any:
    pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")
    made = importlib.import_module("mlx_gemma4_patches.hosts.mlx_lm.tiny").text_model(shape)
    return SimpleNamespace(make_cache=made.make_cache, read=lambda ids, c: made(ids, cache=c))


def _mlx_vlm(shape: str) -> Any:
    pytest.importorskip("mlx_vlm")
    made = importlib.import_module("mlx_gemma4_patches.hosts.mlx_vlm.tiny").model(shape)
    text = made.language_model
    return SimpleNamespace(
        make_cache=text.make_cache, read=lambda ids, c: text(ids, cache=c).logits
    )


_FAMILIES = {"mlx_lm": _mlx_lm, "mlx_vlm": _mlx_vlm}


class _Server:
    """Answers prompts as the hosts do, from what is kept."""

    def __init__(self, model: Any, bits: int | None = None):
        self.model = model
        self.store = PrefixStore()
        self.processed = 0
        self._bits = bits

    def answer(self, prompt: list[int], count: int = 3, stops_after: int | None = None) -> list:
        """[(id, logit), ...] of an answer, or nothing where it is cancelled in the prefill."""
        at, caches = self.store.find("m", prompt)
        caches = caches or self.model.make_cache()
        self.processed = len(prompt) - at
        new, ids, said = prompt[at:-1], list(prompt), []
        steps = 0
        while new:
            chunk, new = new[:_STEP], new[_STEP:]
            self._read(chunk, caches)
            parts = [cut for cut in cuts(prompt) if at < cut <= at + len(chunk)]
            at += len(chunk)
            self.store.add("m", prompt, caches, parts)
            if (steps := steps + 1) == stops_after:
                return []
        last = prompt[-1:]
        for _ in range(count):
            logits = self._read(last, caches)
            said.append((mx.argmax(logits).item(), mx.max(logits).item()))
            last = [said[-1][0]]
            ids += last
        self._read(last, caches)
        self.store.add("m", ids, caches)
        return said

    def _read(self, ids: list[int], caches: list) -> mx.array:
        logits = self.model.read(mx.array([ids]), caches)[0, -1]
        mx.eval(logits, [cache.state for cache in caches])
        if self._bits:
            for i, cache in enumerate(caches):
                if not hasattr(cache, "max_size") and hasattr(cache, "to_quantized"):
                    caches[i] = cache.to_quantized(64, self._bits)
        return logits


def _turn(role: int, seed: int, length: int) -> list[int]:
    text = [110 + token % 180 for token in tiny.prompt(length, seed=seed)]
    return [TURN_ID, role, *text, 106]


@pytest.fixture(scope="module", params=list(_FAMILIES))
def model(request) -> Any:
    return _FAMILIES[request.param]("e2b")


@pytest.mark.parametrize("shape", ["e2b", "moe", "dense"])
@pytest.mark.parametrize("family", list(_FAMILIES))
@pytest.mark.parametrize("length", [3, 30])  # below and above the window
def test_a_turn_goes_on_from_the_last_one(family, shape, length) -> None:
    made = _FAMILIES[family](shape)
    server = _Server(made)
    first = [2, *_turn(_SYSTEM, 1, length), *_turn(_USER, 2, length)]
    server.answer([*first, *_OPEN])
    answered = [*first, *_turn(_MODEL, 3, 4)]  # without the thought
    for prompt, new in (
        ([*answered, *_turn(_USER, 4, length), *_OPEN], 4 + 1 + length + 3 + len(_OPEN)),
        ([*answered, *_turn(_USER, 5, length), *_OPEN], length + 3 + len(_OPEN)),  # edited
        ([*answered, *_turn(_USER, 5, length), *_OPEN], 3),  # again
    ):
        said = server.answer(prompt)
        assert server.processed <= new + 2
        _same(said, _Server(made).answer(prompt))


_ops = st.tuples(st.sampled_from("naeoc"), st.integers(0, 30), st.integers(1, 3))


@settings(max_examples=6, deadline=None)
@given(st.lists(_ops, min_size=2, max_size=7))
def test_any_sequence_of_turns_gives_what_fresh_runs_give(model, turns) -> None:
    server = _Server(model)
    talks = [[[2, *_turn(_SYSTEM, 0, 12)]], [[2, *_turn(_SYSTEM, 0, 12)]]]
    for seed, (what, length, steps) in enumerate(turns):
        if what == "o":  # the other conversation
            talks.reverse()
        if what == "e" and len(talks[0]) > 2:  # edited
            del talks[0][-2:]
        if what != "a" or len(talks[0]) == 1:  # not again
            talks[0].append(_turn(_USER, seed, length))
        prompt = [token for part in talks[0] for token in part] + _OPEN
        if talks[0][-1][1] != _USER:
            prompt = [token for part in talks[0][:-1] for token in part] + _OPEN
        if what == "c":  # cancelled
            server.answer(prompt, stops_after=steps)
            talks[0].pop()
            continue
        said = server.answer(prompt, count=steps)
        _same(said, _Server(model).answer(prompt, count=steps))
        if talks[0][-1][1] == _USER:
            talks[0].append([TURN_ID, _MODEL, *(token for token, _ in said), 106])
        server.store.trim(count=6)


def test_quantized_caches_are_kept_too() -> None:
    made = _mlx_lm("dense")
    server = _Server(made, bits=8)
    first = [2, *_turn(_SYSTEM, 1, 40), *_turn(_USER, 2, 30)]
    server.answer([*first, *_OPEN])
    prompt = [*first, *_turn(_MODEL, 3, 4), *_turn(_USER, 4, 10), *_OPEN]
    said = server.answer(prompt)
    assert server.processed <= 7 + 13 + len(_OPEN)
    fresh = _Server(made, bits=8).answer(prompt)
    assert [token for token, _ in said] == [token for token, _ in fresh]
    assert max(abs(a - b) for (_, a), (_, b) in zip(said, fresh, strict=True)) < 0.05


def test_nobody_writes_into_what_is_kept(model) -> None:
    server = _Server(model)
    prompt = [2, *_turn(_SYSTEM, 1, 40), *_turn(_USER, 2, 30), *_OPEN]
    server.answer(prompt)
    before = [np.array(cache.keys) for cache in server.store.find("m", prompt)[1]]
    users = [server.store.find("m", prompt)[1] for _ in range(4)]
    for seed, caches in enumerate(users):  # all go on from one state, each its own way
        for ids in (_turn(_USER, seed, 5), [7], [8]):
            mx.eval(model.read(mx.array([ids]), caches))
    after = [np.array(cache.keys) for cache in server.store.find("m", prompt)[1]]
    assert all(map(np.array_equal, before, after))
    assert not np.array_equal(users[0][0].keys, users[1][0].keys)


def test_a_conversation_takes_its_windows_and_one_copy_of_the_rest(model) -> None:
    server, prompt = _Server(model), [2, *_turn(_SYSTEM, 1, 200)]
    for seed in range(4):
        prompt += _turn(_USER, seed, 100)
        server.answer([*prompt, *_OPEN])
        prompt += _turn(_MODEL, seed, 20)
    length, caches = server.store.find("m", [*prompt, 0])
    windows = sum(c.keys.nbytes + c.values.nbytes for c in caches if hasattr(c, "max_size"))
    full = sum(c.keys.nbytes + c.values.nbytes for c in caches if not hasattr(c, "max_size"))
    longest = (len(prompt) + len(_OPEN) + 4) / length
    assert server.store.nbytes <= 1.15 * (windows * len(server.store) + full * longest)
    del caches
    held, counted = _active_memory(), server.store.nbytes
    server.store.trim(count=0)
    assert server.store.nbytes == 0
    assert counted <= 1.15 * (held - _active_memory())


def _active_memory() -> int:
    gc.collect()
    mx.synchronize()  # what is being computed holds memory too
    return mx.get_active_memory()


def test_what_no_turn_would_go_on_from_is_dropped_first(model) -> None:
    server, system = _Server(model), [2, *_turn(_SYSTEM, 1, 40)]
    prompt = list(system)
    for seed in range(4):
        prompt += _turn(_USER, seed, 20)
        server.answer([*prompt, *_OPEN])
        prompt += _turn(_MODEL, seed, 20)
    server.store.trim(count=5)
    again = [*prompt[:-23], *_OPEN]
    edited = [*prompt[: -23 - 23], *_turn(_USER, 9, 20), *_OPEN]
    other = [*system, *_turn(_USER, 10, 20), *_OPEN]
    for asked, new in ((again, 3), (edited, 23 + len(_OPEN) + 23), (other, 23 + len(_OPEN))):
        server.answer(asked)
        assert server.processed <= new + 4
        server.store.trim(count=5)


def test_a_limit_of_bytes_holds(model) -> None:
    server = _Server(model)
    server.answer([2, *_turn(_SYSTEM, 1, 100), *_turn(_USER, 2, 100), *_OPEN])
    whole = server.store.nbytes
    server.store.trim(nbytes=2 * whole // 3)
    assert 0 < server.store.nbytes <= 2 * whole // 3
    server.store.trim(nbytes=0)
    assert len(server.store) == server.store.nbytes == 0


@pytest.mark.parametrize("ids", [[], [2], [TURN_ID] * 9, [2**70] * 9, [-(2**70), 1], ["a", "b"]])
def test_odd_ids_are_served_without_reuse(ids) -> None:
    store = PrefixStore()
    assert store.find("m", ids) == (0, None)
    store.add("m", ids, [SimpleNamespace(keys=None, values=None, offset=0)])
    assert store.find("m", [*ids, 1])[0] in (0, len(ids))


def _same(said: list, wanted: list) -> None:
    assert [token for token, _ in said] == [token for token, _ in wanted]
    assert max(abs(a - b) for (_, a), (_, b) in zip(said, wanted, strict=True)) < 1e-3
