"""Batches of unequal prompts repeat themselves or lose the thread, on mlx-vlm's own caches.

What the user sees: requests that are right alone come out wrong when they are decoded together
with others of another length.

Why: since 0.6.4 mlx-vlm has copies of mlx-lm's batch caches, made before mlx-lm 0.32.0 repaired
them: they count with ``self.offset += n``, and ``mx.array`` mutates in place. Attention code that
reads ``cache.offset`` for RoPE before it updates the cache holds the same array. mlx-vlm's Gemma 4
and gemma3n take copies since 0.5.0; code from elsewhere, such as mlx-lm's gemma3n, does not. The
quantized batch caches count the same way.

The fix is that of ``mlx_lm.cache_offset``: ``offset`` hands out a copy. It can be deleted when
mlx-vlm's caches rebind their offset, as mlx-lm's do (ml-explore/mlx-lm#1848).
"""

from __future__ import annotations

from ...gemma4 import offset
from ...hosts.mlx_vlm.own_caches import CACHES, own_caches
from ...patch import Finding, Patch
from ...surgery import Surgery

_CLASSES = (
    f"{CACHES}:BatchKVCache",
    f"{CACHES}:BatchRotatingKVCache",
    f"{CACHES}:BatchQuantizedKVCache",
    "mlx_vlm.turboquant:BatchTurboQuantKVCache",
)


def probe() -> Finding:
    cache = own_caches()
    from mlx_vlm.turboquant import BatchTurboQuantKVCache

    return offset.probe(
        lambda: cache.BatchKVCache([1, 0]),
        lambda: cache.BatchRotatingKVCache(8, [1, 0]),
        lambda: cache.BatchQuantizedKVCache([1, 0]),
        lambda: BatchTurboQuantKVCache([1, 0], bits=4),
    )


def apply(surgery: Surgery) -> None:
    for owner in _CLASSES:
        surgery.add(f"{owner}.offset", offset.snapshot_property())


PATCH = Patch(
    id="mlx_vlm.cache_offset",
    targets=(
        f"{CACHES}:BatchKVCache.update_and_fetch",
        f"{CACHES}:BatchRotatingKVCache._update_concat",
        f"{CACHES}:BatchRotatingKVCache._update_in_place",
        f"{CACHES}:BatchQuantizedKVCache.update_and_fetch",
        "mlx_vlm.turboquant:BatchTurboQuantKVCache.update_and_fetch",
    ),
    apply=apply,
    probe=probe,
)
