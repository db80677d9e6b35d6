"""The prefix cache grows past its memory limit beside mlx-lm 0.32.

What the user sees: the server takes more and more memory; ``--cache-memory-mb`` changes nothing.

Why: what a cache takes is counted from its ``state``, which is taken for a pair of keys and values.
Since mlx-lm 0.32.0 it has more than these two, and such a cache counts as nothing.

The fix: the first two of a state are counted. It can be deleted when no supported release is older
than vllm-mlx 0.5.0, which counts whatever is there.
"""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx

from ...patch import Finding, Patch
from ...surgery import Surgery

_ESTIMATE = "vllm_mlx.memory_cache:estimate_kv_cache_memory"


def probe() -> Finding:
    from mlx_lm.models.cache import KVCache
    from vllm_mlx.memory_cache import estimate_kv_cache_memory

    cache = KVCache()
    cache.update_and_fetch(mx.zeros((1, 1, 4, 8)), mx.zeros((1, 1, 4, 8)))
    counted, held = estimate_kv_cache_memory([cache]), 2 * 4 * 8 * 4
    return Finding(counted < held, f"a cache of at least {held} bytes is counted as {counted}")


def apply(surgery: Surgery) -> None:
    def make(original):
        def estimate_kv_cache_memory(cache):
            return original([_pair(layer) for layer in cache or ()])

        return estimate_kv_cache_memory

    surgery.wrap(_ESTIMATE, make)


def _pair(layer):
    """A layer's cache whose state is keys, values and more, as one of keys and values."""
    if isinstance(layer, dict):
        state = layer.get("state")
        is_longer = isinstance(state, (tuple, list)) and len(state) > 2
        return {**layer, "state": state[:2]} if is_longer else layer
    # quantized caches, whose keys are tuples, are counted otherwise
    keys, state = getattr(layer, "keys", None), getattr(layer, "state", None)
    if isinstance(keys, mx.array) and isinstance(state, (tuple, list)) and len(state) > 2:
        return SimpleNamespace(state=state[:2])
    return layer


PATCH = Patch(id="vllm_mlx.cache_memory", targets=(_ESTIMATE,), apply=apply, probe=probe)
