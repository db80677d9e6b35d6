"""Conversations longer than the sliding window cannot be batched again (mlx-lm 0.31.1).

What the user sees: the generation thread dies with ``[broadcast_shapes]`` or ``Cannot broadcast``
as soon as a cached conversation longer than the window is continued in a batch, or the
conversation goes on without a part of the window.

Why: ``merge`` writes all that a ``RotatingKVCache`` holds, in a space made for its window, and as
many columns as the ring's index says (ml-explore/mlx-lm#1035, #983). Of caches without any tokens
it takes the largest key. ``extract`` slices from a negative left padding; that part is repaired in
``mlx_lm.rotating_extract_pending``, which wraps the same method. Exact from 0.31.2 on.

It can be deleted when no supported release is older than mlx-lm 0.31.2.
"""

from __future__ import annotations

import copy

import mlx.core as mx

from ...patch import Finding, Patch
from ...surgery import Surgery

_MERGE = "mlx_lm.models.cache:BatchRotatingKVCache.merge"
_MERGE_FULL = "mlx_lm.models.cache:BatchKVCache.merge"


def probe() -> Finding:
    from mlx_lm.models.cache import (
        BatchKVCache,
        BatchRotatingKVCache,
        KVCache,
        RotatingKVCache,
    )

    rows = [RotatingKVCache(4) for _ in range(2)]
    try:
        BatchRotatingKVCache.merge(rows)
        BatchKVCache.merge([KVCache(), KVCache()])
    except ValueError as error:
        return Finding(True, f"merging rows that hold no tokens fails: {error}")
    for row, length in zip(rows, (6, 2), strict=True):
        row.update_and_fetch(*_tokens(0, length))
    try:
        batch = BatchRotatingKVCache.merge(rows)
        for token in range(3):
            both = [mx.concatenate([_tokens(s + token, 1)[0] for s in (6, 2)])] * 2
            batch.update_and_fetch(*both)
        row = batch.extract(0)
        keys, _ = row.update_and_fetch(*_tokens(9, 1))
    except ValueError as error:
        return Finding(
            True, f"a row longer than the window cannot be merged and extracted: {error}"
        )
    seen = sorted(keys.flatten().astype(mx.int32).tolist())
    if seen != [6, 7, 8, 9]:
        return Finding(True, f"token 9 of an extracted row sees {seen}, not [6, 7, 8, 9]")
    return Finding(False, "rows longer than the window are merged and extracted whole")


def _tokens(start: int, count: int) -> tuple[mx.array, mx.array]:
    keys = mx.arange(start, start + count, dtype=mx.float32).reshape(1, 1, count, 1)
    return keys, keys


def _merge(original):
    def merge(cls, caches):
        if all(cache.keys is None for cache in caches):
            return cls(caches[0].max_size, [0] * len(caches))
        return original(cls, [_last_window(cache) for cache in caches])

    return merge


def _merge_full(original):
    def merge(cls, caches):
        if all(cache.keys is None for cache in caches):
            return cls([0] * len(caches))
        return original(cls, caches)

    return merge


def _last_window(cache):
    """``cache`` with nothing but its window in it, in temporal order."""
    if cache.keys is None:
        return cache
    window = copy.copy(cache)
    window._idx = cache.size()
    window.keys = cache._temporal_order(cache.keys)[..., -window._idx :, :]
    window.values = cache._temporal_order(cache.values)[..., -window._idx :, :]
    return window


def apply(surgery: Surgery) -> None:
    surgery.wrap(_MERGE, _merge)
    surgery.wrap(_MERGE_FULL, _merge_full)


PATCH = Patch(
    id="mlx_lm.rotating_extract",
    targets=(_MERGE, _MERGE_FULL),
    apply=apply,
    probe=probe,
)
