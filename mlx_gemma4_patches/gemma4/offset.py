"""Offsets of batch KV caches that stay what they were when they were read.

``mx.array`` is mutable through ``+=`` and ``-=``. A batch cache that counts with
``self.offset += n`` therefore changes the array that an attention layer took as its RoPE offset
before the update: queries are rotated by a later position than keys.
"""

from __future__ import annotations

import mlx.core as mx

from ..patch import Finding

_NAME = "offset"


def _get(cache) -> mx.array:
    try:
        return cache.__dict__[_NAME].__copy__()  # read thrice a layer and token: the fastest copy
    except KeyError:
        raise AttributeError(f"{type(cache).__name__!r} object has no attribute 'offset'") from None
    except AttributeError:  # not an array
        return cache.__dict__[_NAME]


def _set(cache, offset) -> None:
    cache.__dict__[_NAME] = offset


def snapshot_property() -> property:
    """A property ``offset`` that hands out a copy, shape ``(batch,)``, dtype int32.

    The value stays where the plain attribute keeps it, so caches made before the property was
    put on their class, or after it was taken off, go on working.
    """
    return property(_get, _set, doc="Tokens seen by each row, shape (batch,); a copy.")


def probe(*classes) -> Finding:
    """Whether an offset captured from one of the batch cache ``classes`` moves under its holder.

    Args:
        classes: callables that make an empty cache of two rows with left padding 1 and 0.
    """
    row = mx.zeros((2, 1, 3, 64))  # quantized caches work in groups of 64
    moved = []
    for make in classes:
        cache = make()
        captured = cache.offset
        before = captured.tolist()
        cache.update_and_fetch(row, row)
        if captured.tolist() != before:
            moved.append(f"{type(cache).__name__}: {before} became {captured.tolist()}")
    if moved:
        return Finding(True, f"an offset that was read changed with the next update: {moved[0]}")
    return Finding(False, "an offset that was read stays as it was")
