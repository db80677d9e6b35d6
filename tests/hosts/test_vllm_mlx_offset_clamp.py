"""Caches that vllm-mlx trims to the window keep the position of the next token."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.offset_clamp"
_WINDOW = 16


def _caches(*lengths: int) -> list:
    """One rotating cache for each number of tokens, and a plain one; keys count from 0."""
    from mlx_vlm.models.cache import KVCache, RotatingKVCache

    made = [RotatingKVCache(_WINDOW) for _ in lengths] + [KVCache()]
    for cache, length in zip(made, [*lengths, 5], strict=True):
        if length:
            keys = mx.arange(length, dtype=mx.float32).reshape(1, 1, length, 1)
            cache.update_and_fetch(keys, -keys)
    return made


def _trim(caches: list) -> list:
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator

    getattr(MLLMBatchGenerator, "_trim_rotating_caches", lambda caches: None)(caches)
    return caches


class TestOffsetClamp(PatchContract):
    id = ID

    def untouched(self):
        trimmed = _trim(_caches(0, 3, _WINDOW - 1, _WINDOW))
        return [(cache.offset, cache.keys, cache.values) for cache in trimmed]


@pytest.mark.parametrize("length", [3, _WINDOW, _WINDOW + 1, 40, 100])
def test_a_trimmed_cache_goes_on_at_the_position_it_had(length: int) -> None:
    (cache, _) = _trim(_caches(length))
    assert cache.offset == length

    batch = cache.merge([cache])
    new = mx.full((1, 1, 1, 1), length, dtype=mx.float32)
    keys, _ = batch.update_and_fetch(new, -new)
    assert batch.offset.tolist() == [length + 1]
    kept = list(range(max(0, length + 1 - _WINDOW), length + 1))
    assert sorted(keys.flatten().tolist()) == kept


def test_a_cache_that_has_lost_entries_is_treated_as_by_vllm_mlx() -> None:
    (cache, _) = _caches(40)
    cache.keys, cache.values = cache.keys[..., :4, :], cache.values[..., :4, :]
    offset_of_stock = 4 if _clamps(cache) else 40
    _trim([cache])
    assert cache.offset == offset_of_stock


def _clamps(cache) -> bool:
    from mlx_lm.models.cache import RotatingKVCache
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator

    known = isinstance(cache, RotatingKVCache)  # mlx-vlm 0.6.4 and later have their own
    return known and hasattr(MLLMBatchGenerator, "_trim_rotating_caches")
