"""Rows taken out of a batch KV cache while its prefill is under way.

Prompts of unequal length are padded on the right: ``prepare`` says by how much, the tokens go
through in chunks, and ``finalize`` rolls the padding over to the left. In between, ``extract``
takes padding for content, and ``filter`` forgets to select the rows of what ``prepare`` noted.
With padding on the left, ``filter`` can cut more columns than the prefill has written so far.
"""

from __future__ import annotations

import copy
from types import ModuleType

import mlx.core as mx

from ..patch import Finding
from ..surgery import Surgery

# what a cache notes per row until finalize(); _row_ends is ours, see _prepare
_PER_ROW = ("_right_padding", "_lengths", "_row_ends")


def targets(module: str) -> tuple[str, ...]:
    return (
        f"{module}:BatchKVCache.prepare",
        *(
            f"{module}:{name}.{method}"
            for name in ("BatchKVCache", "BatchRotatingKVCache")
            for method in ("extract", "filter")
        ),
    )


def apply(surgery: Surgery, module: str) -> None:
    """Repair both batch caches of ``module``."""
    surgery.wrap(f"{module}:BatchKVCache.prepare", _prepare)
    for name in ("BatchKVCache", "BatchRotatingKVCache"):
        surgery.wrap(f"{module}:{name}.extract", _extract)
        surgery.wrap(f"{module}:{name}.filter", _filter)


def _prepare(original):
    def prepare(cache, *, lengths=None, **kwargs):
        original(cache, lengths=lengths, **kwargs)
        # BatchRotatingKVCache keeps these ends itself; without them nobody knows in the middle of
        # a prefill how much of the padding is in
        cache._row_ends = None if lengths is None else mx.array(lengths) + cache.offset

    return prepare


def _extract(original):
    def extract(cache, idx):
        return original(_settled(cache), idx)

    return extract


def _is_pending(cache) -> bool:
    return any(getattr(cache, name, None) is not None for name in ("_right_padding", "_lengths"))


def _settled(cache):
    settled = copy.copy(cache)
    if _is_pending(cache):
        # finalize() may work in place on these
        settled.offset = mx.array(cache.offset)
        settled.left_padding = mx.array(cache.left_padding)
        if getattr(cache, "_row_ends", None) is not None:
            settled._right_padding = mx.maximum(0, cache.offset - cache._row_ends)
        settled.finalize()
    # below zero it counts evicted tokens; mlx-lm 0.31.1 would slice from there
    settled.left_padding = mx.maximum(settled.left_padding, 0)
    return settled


def _filter(original):
    def filter(cache, batch_indices):
        noted = {}
        if _is_pending(cache):
            noted = {name: getattr(cache, name, None) for name in _PER_ROW}
        original(cache, batch_indices)
        for name, value in noted.items():
            if value is not None:
                setattr(cache, name, value[batch_indices])
        if cache._idx < 0:  # more columns cut than there were; all of them were padding
            cache.left_padding = cache.left_padding - cache._idx
            cache._idx = 0

    return filter


def probe(caches: ModuleType) -> Finding:
    """Whether a row of 3 tokens in a batch padded to 5 is taken out as one of 3 tokens."""
    for make in (
        lambda padding: caches.BatchKVCache(padding),
        lambda padding: caches.BatchRotatingKVCache(8, padding),
    ):
        batch = make([0, 0])
        name = type(batch).__name__
        batch.prepare(lengths=[5, 3], right_padding=[0, 2])
        batch.update_and_fetch(mx.zeros((2, 1, 5, 4)), mx.zeros((2, 1, 5, 4)))
        row = batch.extract(1)
        if row.offset != 3:
            return Finding(True, f"{name}: a row of 3 tokens comes out with {row.offset}")
        batch.filter([1])
        try:
            batch.finalize()
        except ValueError as error:
            return Finding(True, f"{name}: finalize() after filter() fails: {error}")
        if batch.offset.tolist() != [3]:
            return Finding(True, f"{name}: a row of 3 tokens is kept with {batch.offset.tolist()}")
        batch = make([0, 4])
        batch.update_and_fetch(mx.zeros((2, 1, 2, 4)), mx.zeros((2, 1, 2, 4)))
        batch.filter([1])
        if batch._idx < 0:
            return Finding(True, f"{name}: a row kept in mid-prefill is written to {batch._idx}")
    return Finding(False, "a row taken out in mid-prefill holds its own tokens and no others")
