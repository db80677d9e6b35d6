"""Wrong text for every prompt longer than the sliding window.

What the user sees: with continuous batching, answers to long prompts drift into nonsense, though
the same prompts are answered well by mlx-vlm alone.

Why: before it merges the caches of new requests, ``_trim_rotating_caches`` lowers their ``offset``
to the size of the window (waybarrios/vllm-mlx#296). ``offset`` is not a count of kept entries but
the position that RoPE continues from: generated tokens stand in the middle of the prompt.

The fix: the buffers are trimmed, the position stays. It can be deleted when no supported release
is older than vllm-mlx 0.5.0, which has no such function. The caches that mlx-vlm has of its own
from 0.6.4 on were never trimmed.
"""

from __future__ import annotations

import mlx.core as mx

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TRIM = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator._trim_rotating_caches"


def probe() -> Finding:
    from mlx_vlm.models.cache import RotatingKVCache  # of the family that Gemma 4 makes
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator

    if not hasattr(MLLMBatchGenerator, "_trim_rotating_caches"):
        raise NotApplicable("this vllm-mlx leaves the offsets of its caches alone")
    cache = RotatingKVCache(max_size=4)
    cache.update_and_fetch(mx.zeros((1, 1, 6, 8)), mx.zeros((1, 1, 6, 8)))
    MLLMBatchGenerator._trim_rotating_caches([cache])
    return Finding(
        cache.offset != 6, f"after 6 tokens the next one is put at position {cache.offset}"
    )


def apply(surgery: Surgery) -> None:
    def make(original):
        def _trim_rotating_caches(cache_list):
            from mlx_lm.models.cache import RotatingKVCache

            rotating = [cache for cache in cache_list if isinstance(cache, RotatingKVCache)]
            positions = [cache.offset for cache in rotating]
            original(cache_list)
            for cache, position in zip(rotating, positions, strict=True):
                # An offset below the window's size says that entries are missing: not ours.
                if cache.offset == cache.max_size < position:
                    cache.offset = position

        return _trim_rotating_caches

    surgery.wrap(_TRIM, make)


PATCH = Patch(id="vllm_mlx.offset_clamp", targets=(_TRIM,), apply=apply, probe=probe)
