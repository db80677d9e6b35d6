"""Batches of unequal prompts repeat themselves or lose the thread.

What the user sees: requests that are right alone come out wrong when they are decoded together
with others of another length.

Why: ``BatchKVCache`` and ``BatchRotatingKVCache`` count with ``self.offset += n``, and ``mx.array``
mutates in place. Attention code that reads ``cache.offset`` for RoPE before it updates the cache
holds the same array, so queries are rotated by a later position than the keys. mlx-vlm's Gemma 4
up to 0.4.4 and mlx-lm's gemma3n do; mlx-lm's own Gemma 4 takes a copy.

The fix: ``offset`` hands out a copy. It can be deleted when no supported release is older than
mlx-lm 0.32.0, which rebinds instead (ml-explore/mlx-lm#1848).
"""

from __future__ import annotations

from ...gemma4 import offset
from ...patch import Finding, Patch
from ...surgery import Surgery

_CACHES = "mlx_lm.models.cache"
_CLASSES = ("BatchKVCache", "BatchRotatingKVCache")


def probe() -> Finding:
    from mlx_lm.models.cache import BatchKVCache, BatchRotatingKVCache

    return offset.probe(
        lambda: BatchKVCache([1, 0]),
        lambda: BatchRotatingKVCache(8, [1, 0]),
    )


def apply(surgery: Surgery) -> None:
    for name in _CLASSES:
        surgery.add(f"{_CACHES}:{name}.offset", offset.snapshot_property())


PATCH = Patch(
    id="mlx_lm.cache_offset",
    # what other patches wrap is left out: they would hide each other's source
    targets=(
        f"{_CACHES}:BatchKVCache.update_and_fetch",
        f"{_CACHES}:BatchKVCache.finalize",
        f"{_CACHES}:BatchKVCache.trim",
        f"{_CACHES}:BatchRotatingKVCache._update_concat",
        f"{_CACHES}:BatchRotatingKVCache._update_in_place",
        f"{_CACHES}:BatchRotatingKVCache.prepare",
        f"{_CACHES}:BatchRotatingKVCache.finalize",
    ),
    apply=apply,
    probe=probe,
)
