"""Batch KV caches that come back from their state as they were.

``from_state`` makes a cache without ``__init__``, so what neither ``state`` nor ``meta_state``
carries is missing afterwards; ``meta_state`` is text, and ``bool("False")`` is true; and ``state``
of a cache that has seen no token looks for the shape of keys that are not there.
"""

from __future__ import annotations

import functools
from types import ModuleType

import mlx.core as mx

from ..patch import Finding
from ..surgery import Surgery


def targets(module: str) -> tuple[str, ...]:
    return (
        f"{module}:BatchKVCache.__init__",
        f"{module}:BatchKVCache.state",
        f"{module}:BatchRotatingKVCache.__init__",
        f"{module}:BatchRotatingKVCache.state",
        f"{module}:BatchRotatingKVCache.meta_state",
    )


def apply(surgery: Surgery, module: str, nothing: tuple[()] | None) -> None:
    """Repair both batch caches of ``module``.

    Args:
        nothing: what stands in a state for the keys of a cache that has seen no token.
    """
    # read where __init__ has not put an instance's own
    surgery.add(f"{module}:BatchKVCache._right_padding", None)
    surgery.add(f"{module}:BatchRotatingKVCache._lengths", None)
    meta_state = f"{module}:BatchRotatingKVCache.meta_state"
    if meta_state in surgery.targets:  # without it, state carries everything and as it is
        surgery.wrap_property(meta_state, fset=_set_meta_state)
        for name in ("BatchKVCache", "BatchRotatingKVCache"):
            surgery.wrap_property(
                f"{module}:{name}.state", functools.partial(_get_state, nothing), _set_state
            )


def _get_state(nothing, original):
    def state(cache):
        if cache.keys is None:
            return nothing, nothing, cache.offset, cache.left_padding
        return original(cache)

    return state


def _set_state(original):
    def state(cache, value):
        if value[0] is None or len(value[0]) == 0:
            cache.keys = cache.values = None
            cache.offset, cache.left_padding = value[2:]
            cache._idx = 0
        else:
            original(cache, value)

    return state


def _set_meta_state(original):
    def meta_state(cache, value):
        original(cache, value)
        cache.rotated = str(value[3]) == "True"

    return meta_state


def probe(caches: ModuleType) -> Finding:
    """Whether a batch that came back from its state still decodes as the one that stayed."""
    for make in (
        lambda: caches.BatchKVCache([1, 0]),
        lambda: caches.BatchRotatingKVCache(4, [1, 0]),
    ):
        for length in (0, 3):
            stayed = make()
            name = f"{type(stayed).__name__} of {length} tokens"
            if length:
                stayed.update_and_fetch(*_tokens(0, length))
            try:
                back = _round_trip(stayed)
                if getattr(back, "rotated", False):
                    return Finding(True, f"{name}, saved and loaded, takes itself for rotated")
                seen = [cache.update_and_fetch(*_tokens(length, 1))[0] for cache in (stayed, back)]
                back.finalize()
            except AttributeError as error:
                return Finding(True, f"{name} cannot be saved and loaded: {error}")
            if not mx.array_equal(*seen):
                return Finding(True, f"{name}, saved and loaded, attends to other keys")
    return Finding(False, "batches that were saved and loaded are as they were")


def _tokens(start: int, count: int) -> tuple[mx.array, mx.array]:
    keys = mx.broadcast_to(mx.arange(start, start + count)[:, None] + 1.0, (2, 1, count, 4))
    return keys, -keys


def _round_trip(cache):
    """As ``save_prompt_cache`` and ``load_prompt_cache`` do, without the file."""
    if hasattr(cache, "meta_state"):
        return type(cache).from_state(cache.state, cache.meta_state)
    return type(cache).from_state(cache.state)
