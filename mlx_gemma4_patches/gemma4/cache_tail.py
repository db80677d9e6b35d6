"""The tail of a sliding-window cache, dropped exactly after the window has filled.

A step of several tokens leaves the last ``max_size - 1`` tokens and its own in temporal order, so
the newest of them can be dropped without loss: that is how a verified draft is rewound. ``trim``
only moves the counters. The dropped keys stay in the buffer, and the next step takes them for
content.
"""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx

from ..patch import Finding
from ..surgery import Surgery


def targets(module: str) -> tuple[str, ...]:
    return tuple(
        f"{module}:{name}.{method}"
        for name in ("RotatingKVCache", "BatchRotatingKVCache")
        for method in ("trim", "_update_in_place")
    )


def apply(surgery: Surgery, module: str) -> None:
    """Repair both sliding-window caches of ``module``; ``is_trimmable`` stays as it is."""
    for name in ("RotatingKVCache", "BatchRotatingKVCache"):
        surgery.wrap(f"{module}:{name}.trim", _trim)


def _trim(original):
    def trim(cache, n):
        if cache.keys is not None and not cache.is_trimmable():
            drop_tail(cache, n)
        return original(cache, n)

    return trim


def drop_tail(cache, n: int) -> None:
    """Cut the last ``n`` tokens off the buffers; the counters are left to ``trim``.

    Only where what is left is all that the window needs: not in a ring, whose older tokens are
    gone.
    """
    seen = getattr(cache, "_offset", cache.offset)  # a batch's own offset is one per row
    left = cache._idx - min(seen, n)
    in_order = not cache.rotated if hasattr(cache, "rotated") else cache._idx == cache.keys.shape[2]
    if in_order and (left >= cache.max_size or cache._idx == seen):
        cache.keys = cache.keys[..., :left, :]
        cache.values = cache.values[..., :left, :]


def probe(caches: ModuleType) -> Finding:
    """Whether a token after a rewound step of 4 sees its window of 4 and nothing dropped."""
    for make in (
        lambda: caches.RotatingKVCache(4),
        lambda: caches.BatchRotatingKVCache(4, [0]),
    ):
        cache = make()
        for start, count in ((0, 6), (6, 4)):
            cache.update_and_fetch(*_tokens(start, count))
        cache.trim(3)
        keys, _ = cache.update_and_fetch(*_tokens(7, 1))
        seen = sorted(keys.flatten().astype(mx.int32).tolist())
        if seen != [4, 5, 6, 7]:
            return Finding(
                True, f"{type(cache).__name__}: token 7 sees tokens {seen}, not [4, 5, 6, 7]"
            )
    return Finding(False, "of tokens that were taken back nothing is left in the cache")


def _tokens(start: int, count: int) -> tuple[mx.array, mx.array]:
    keys = mx.arange(start, start + count, dtype=mx.float32).reshape(1, 1, count, 1)
    return keys, keys
