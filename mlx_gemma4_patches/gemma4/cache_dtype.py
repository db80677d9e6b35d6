"""Batch KV caches that keep their dtype when an empty batch joins or is joined.

``extend`` makes up the missing keys with ``mx.array([])``, which is float32: the concatenation
promotes everything, and the cache takes twice the memory from then on.
"""

from __future__ import annotations

import copy
from types import ModuleType

import mlx.core as mx

from ..patch import Finding
from ..surgery import Surgery

_CLASSES = ("BatchKVCache", "BatchRotatingKVCache")


def targets(module: str) -> tuple[str, ...]:
    return tuple(f"{module}:{name}.extend" for name in _CLASSES)


def apply(surgery: Surgery, module: str) -> None:
    """Repair both batch caches of ``module``."""
    for target in targets(module):
        surgery.wrap(target, _extend)


def _extend(original):
    def extend(cache, other):
        if cache.keys is None and other.keys is not None:
            cache.keys, cache.values = _no_tokens(cache, other)
        elif cache.keys is not None and other.keys is None:
            rows = other
            other = copy.copy(rows)
            other.keys, other.values = _no_tokens(rows, cache)
        original(cache, other)

    return extend


def _no_tokens(empty, full) -> list[mx.array]:
    """Keys and values of zero tokens for the rows of ``empty``, as ``full`` has them."""
    rows = empty.offset.shape[0]
    return [
        mx.zeros((rows, array.shape[1], 0, array.shape[3]), array.dtype)
        for array in (full.keys, full.values)
    ]


def probe(caches: ModuleType) -> Finding:
    """Whether a bfloat16 batch of one row is still that after two empty rows joined."""
    for make in (
        lambda padding: caches.BatchKVCache(padding),
        lambda padding: caches.BatchRotatingKVCache(8, padding),
    ):
        batch, joining = make([0]), make([0, 0])
        keys = mx.zeros((1, 1, 3, 4), mx.bfloat16)
        batch.update_and_fetch(keys, keys)
        try:
            batch.extend(joining)
        except (AttributeError, ValueError) as error:
            return Finding(True, f"{type(batch).__name__}: {error}")
        if batch.keys.dtype != mx.bfloat16 or batch.keys.shape[0] != 3:
            found = f"{batch.keys.shape[0]} rows of {str(batch.keys.dtype).rpartition('.')[2]}"
            return Finding(True, f"{type(batch).__name__}: 3 bfloat16 rows became {found}")
    return Finding(False, "a bfloat16 batch stays bfloat16")
