"""What vllm-mlx reuses of earlier prompts answers as a fresh run does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import batching, checkpoints
from tests.hosts.contract import PatchContract, patched, stock

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.prefix_cache"
_SHORT, _LONG = 16, 4096  # windows; only the long one holds a whole prompt
_TOKENS = 5

# past the 128 tokens under which 0.4.0 and later look for no prefix
_SYSTEM = "".join(f"{number}. Be kind to birds. " for number in range(8))


def _user(text: str) -> dict:
    return {"role": "user", "content": text}


def _model(tmp_path: Path, engine: str, shape: str, window: int) -> Path:
    folder = batching.save(shape, tmp_path / "model", batching.PLAIN_TEMPLATE)

    def slide(config):
        config["text_config"]["sliding_window"] = window

    checkpoints.change(folder, slide)
    if engine == "text":
        checkpoints.change(folder, checkpoints.text_only, checkpoints.text_tensors)
    return folder


def _conversations() -> Iterator[list[dict]]:
    question = _user(f"{_SYSTEM}cats")
    yield [question]
    yield [question]
    yield [question, {"role": "assistant", "content": "purr"}, _user("more")]
    yield [_user(f"{_SYSTEM}cars")]
    yield [_user(_SYSTEM)]
    yield [question]


def _stored(layers: list, tokens: list[int], asked: list[int]):
    """What is found for ``asked`` after ``layers`` were stored for ``tokens``: state, rest."""
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache

    cache = MemoryAwarePrefixCache(SimpleNamespace())
    cache.store(tokens, layers)
    found, rest = cache.fetch(asked)
    stats = cache.get_stats()
    return found and [layer.state for layer in found], rest, stats["hits"], stats["misses"]


class TestPrefixCache(PatchContract):
    id = ID

    def untouched(self):
        """Models without a sliding window, and prompts that nothing is known of."""
        from mlx_lm.models.cache import KVCache, RotatingKVCache

        tokens = tiny.prompt(150)
        found = []
        for asked in (tokens, tokens[:-5], [*tokens[:-5], 3, 4], [*tokens, 3], [3, *tokens]):
            layers = [KVCache(), KVCache()]
            for layer in layers:
                keys = mx.arange(150.0)[None, None, :, None]
                layer.update_and_fetch(keys, -keys)
            found.append(_stored(layers, tokens, asked))
        found.append(_stored([RotatingKVCache(16)], tokens, [3, *tokens]))
        return found


def _outcome(model, tokens: list[int], asked: list[int]) -> str:
    """Whether ``asked`` hits what is stored of ``tokens``, and gets the logits of a fresh run."""
    from mlx_lm.models.cache import make_prompt_cache
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache

    def logits(ids, layers):
        made = model(mx.array([ids]), cache=layers)[0, -1]
        mx.eval(made, [layer.state for layer in layers])
        return made

    layers = make_prompt_cache(model)
    logits(tokens, layers)
    cache = MemoryAwarePrefixCache(SimpleNamespace())
    cache.store(tokens, layers)
    found, rest = cache.fetch(asked)
    if not found:
        return "a miss"
    hit = logits(rest or asked[-1:], found)  # as the text engine feeds an exact hit
    fresh = logits(asked, make_prompt_cache(model))
    return "right" if mx.allclose(hit, fresh, atol=1e-3) else "wrong"


@pytest.mark.parametrize("make", [other_models.gemma3n, other_models.llama])
def test_other_models_lose_no_right_hit(make) -> None:
    model, tokens = make(), tiny.prompt(150)
    seen = set()
    for asked in (tokens, [*tokens, 3], tokens[:-2], [*tokens[:-3], 3, 4, 5], [3, *tokens]):
        with stock(ID):
            before = _outcome(model, tokens, asked)
        with patched(ID):
            after = _outcome(model, tokens, asked)
        assert before == "wrong" or after == before
        seen.add(before)
    assert {"right", "a miss"} <= seen


@pytest.mark.parametrize("window", [_SHORT, _LONG])
@pytest.mark.parametrize(("engine", "shape"), [("multimodal", "e2b"), ("text", "dense")])
def test_every_answer_is_that_of_a_fresh_run(
    engine: str, shape: str, window: int, tmp_path: Path
) -> None:
    if engine == "text":
        batching.skip_what_cannot_batch_text()
    folder = _model(tmp_path, engine, shape, window)
    answers, hits = {}, []
    for reuse in (True, False):
        with batching.engine(folder, engine == "multimodal", enable_prefix_cache=reuse) as running:
            answers[reuse] = []
            for conversation in _conversations():
                answer = running.answer(*conversation, max_tokens=_TOKENS)
                answers[reuse].append(answer.text)
                hits += [running.prefix_hits()] if reuse else []
    assert answers[True] == answers[False]
    if window == _LONG and hits[0] is not None:  # the engine has a prefix cache
        assert hits[1] > hits[0]
        assert hits[-1] > hits[-2]


def test_nothing_is_stored_for_no_cache():
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache

    def stored():
        cache = MemoryAwarePrefixCache(SimpleNamespace())
        return [cache.store([1, 2, 3], nothing) for nothing in (None, [])], len(cache)

    with patched(ID):
        ours = stored()
    with stock(ID):
        assert ours == stored()
