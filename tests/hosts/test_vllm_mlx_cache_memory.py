"""What the prefix cache holds is counted, and its limit holds."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract, patched

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.cache_memory"
TOKENS = mx.zeros((1, 2, 256, 32))
BYTES = 2 * TOKENS.nbytes


def _caches() -> list:
    from mlx_lm.models.cache import KVCache, RotatingKVCache

    made = [KVCache(), RotatingKVCache(256)]
    for cache in made:
        cache.update_and_fetch(TOKENS, TOKENS)
    return made


def _counted(caches: list) -> int:
    from vllm_mlx.memory_cache import estimate_kv_cache_memory

    return estimate_kv_cache_memory(caches)


class TestCacheMemory(PatchContract):
    id = ID

    def untouched(self):
        """Nothing, pairs of keys and values, and quantized caches."""
        pair = {"state": (TOKENS, TOKENS)}
        quantized = _caches()[0].to_quantized(group_size=32, bits=8)
        return _counted([]), _counted([pair, pair]), _counted([quantized])


def test_caches_count_as_what_they_hold() -> None:
    with patched(ID):
        assert _counted(_caches()) == 2 * BYTES
        assert _counted([{"state": cache.state} for cache in _caches()]) >= 2 * BYTES


def test_the_limit_of_the_prefix_cache_holds() -> None:
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache, MemoryCacheConfig

    limit = 1  # MiB: eight of these prompts
    with patched(ID):
        cache = MemoryAwarePrefixCache(object(), MemoryCacheConfig(max_memory_mb=limit))
        for number in range(16):
            cache.store([number, *range(100, 355)], _caches())
        assert 0 < cache.get_stats()["current_memory_mb"] <= limit
        found, _ = cache.fetch([0, *range(100, 355)])
        assert not found
