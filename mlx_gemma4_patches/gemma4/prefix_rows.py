"""What KV caches held after the first tokens of a text, kept to go on from there.

A sliding window cannot be rewound: what it has overwritten is gone. So its rows are copied, those
of the window and no more, while they are there. A step of several tokens leaves all of its own
rows and the window before them until the next step, so any place within the step can be kept after
it, without splitting it.

Full-attention layers lose nothing. Their rows are kept once for a whole conversation: what was
kept at an earlier place of it is the beginning of what is kept at a later one.

Caches are told apart by what they have, not by their class, so those of any host will do:

=================================================== ==========================================
``max_size``, no ``keep``, ``_temporal_order``       a sliding window
``keys``, ``values`` and ``offset`` without these   full attention, quantized or not
anything else                                       copied whole, where it is just that far
=================================================== ==========================================
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx

# Quantized keys are a tuple of packed rows, scales and biases, all with tokens on axis -2.
Rows = Any


class Full:
    """The rows of the full-attention layers of a text, which all that is kept of it looks into.

    Args:
        rows: by layer, keys and values.
        length: tokens of the text.
        base: the rows of another text, whose first ``start`` tokens are the same; ``rows`` are
            those behind them.
    """

    def __init__(
        self,
        rows: dict[int, tuple[Rows, Rows]],
        length: int,
        base: Full | None = None,
        start: int = 0,
    ):
        self.rows = rows
        self.length = length
        self.base = base
        self.start = start

    @property
    def nbytes(self) -> int:
        """Bytes beside those of ``base``."""
        return sum(x.nbytes for x in _arrays(self.rows.values()))

    def first(self, layer: int, length: int) -> tuple[Rows, Rows]:
        """New arrays of the first rows of a layer."""
        if self.base is None:
            return tuple(_first(x, length) for x in self.rows[layer])
        if length <= self.start:
            return self.base.first(layer, length)
        before = self.base.first(layer, self.start)
        behind = (_first(x, length - self.start) for x in self.rows[layer])
        return tuple(_joined(x, y) for x, y in zip(before, behind, strict=True))

    def continues(self, other: Full) -> bool:
        """Whether the rows of a beginning of this text can be taken for those of ``other``.

        Not where a cache was quantized in between.
        """
        return other.length <= self.length and self.is_like(other)

    def is_like(self, other: Full) -> bool:
        """Whether the rows are of one form."""
        return self._form() == other._form()

    def _form(self) -> list[Any]:
        return [(i, [x.dtype for x in _arrays(both)]) for i, both in sorted(self.rows.items())]

    def upon(self, base: Full, start: int) -> Full:
        """The same rows, the first ``start`` of them taken from ``base``."""
        skipped = start - self.start
        rows = {i: tuple(_behind(x, skipped) for x in both) for i, both in self.rows.items()}
        mx.async_eval(list(_arrays(rows.values())))
        return Full(rows, self.length, base, start)

    def shrink(self, length: int) -> None:
        """Give back the memory of rows that nobody looks at."""
        own = max(0, length - self.start)
        self.rows = {i: tuple(_copied(x, own) for x in both) for i, both in self.rows.items()}
        self.length = max(length, self.start)
        mx.async_eval(list(_arrays(self.rows.values())))


class Kept:
    """The state of a model's caches after ``length`` tokens."""

    def __init__(self, length: int, full: Full):
        self.length = length
        self.full = full
        self.blank: list[Any] = []  # the caches without rows
        self.windows: dict[int, tuple[mx.array, mx.array]] = {}
        self.whole: dict[int, Any] = {}

    @property
    def nbytes(self) -> int:
        """Bytes beside those of ``full``."""
        windows = sum(x.nbytes for x in _arrays(self.windows.values()))
        return windows + sum(getattr(cache, "nbytes", 0) for cache in self.whole.values())

    def caches(self) -> list[Any]:
        """Fresh caches in that state; what is written to them does not show here."""
        made = []
        for i, blank in enumerate(self.blank):
            cache = copy.deepcopy(self.whole[i]) if i in self.whole else copy.copy(blank)
            if i in self.windows:
                cache.keys, cache.values = (x[...] for x in self.windows[i])
                cache._idx = cache.keys.shape[-2]
            elif i in self.full.rows:
                cache.keys, cache.values = self.full.first(i, self.length)
            made.append(cache)
        return made


def keep(caches: list[Any], lengths: Sequence[int]) -> list[Kept]:
    """What ``caches`` held after each of ``lengths`` tokens, where they still have it.

    Args:
        caches: caches of one text, one per layer, evaluated or not; they may be written to later.
        lengths: within the last step of the caches, if that was one of several tokens; else their
            end alone can be had.
    """
    full = Full({}, 0)
    made = [kept for n in lengths if (kept := _keep(caches, n, full)) is not None]
    if made:
        for i, cache in enumerate(caches):
            if not _is_blank(cache) and is_full(cache):
                full.length = offset = _offset(cache)
                full.rows[i] = tuple(_copied(x, offset) for x in (cache.keys, cache.values))
        mx.async_eval(list(_arrays([full.rows.values(), *(k.windows.values() for k in made)])))
    return made


def _keep(caches: list[Any], length: int, full: Full) -> Kept | None:
    kept = Kept(length, full)
    for i, cache in enumerate(caches):
        if _is_blank(cache):
            kept.blank.append(copy.copy(cache))
            continue
        offset = _offset(cache)
        if offset is None or offset < length:
            return None
        if is_window(cache):
            if (rows := _window(cache, offset - length, length)) is None:
                return None
            kept.windows[i] = rows
        elif is_full(cache):
            if _count(cache.keys) < length:
                return None
        elif offset == length:
            kept.whole[i] = copy.deepcopy(cache)
        else:
            return None
        kept.blank.append(None if i in kept.whole else _emptied(cache, length))
    return kept


def _is_blank(cache: Any) -> bool:
    return cache is None or (hasattr(cache, "keys") and cache.keys is None)


def is_window(cache: Any) -> bool:
    """Whether a cache that holds rows is a sliding window."""
    ordered = hasattr(cache, "max_size") and hasattr(cache, "_temporal_order")
    return ordered and not getattr(cache, "keep", 0) and isinstance(cache.keys, mx.array)


def is_full(cache: Any) -> bool:
    """Whether a cache holds the rows of full attention, quantized or not."""
    return not hasattr(cache, "max_size") and all(
        isinstance(x, mx.array)
        or (isinstance(x, (tuple, list)) and all(isinstance(y, mx.array) for y in x))
        for x in (getattr(cache, "keys", None), getattr(cache, "values", None))
    )


def _offset(cache: Any) -> int | None:
    """How many tokens a cache of one text has seen."""
    offset = getattr(cache, "offset", None)
    if isinstance(offset, mx.array):
        return offset.item() if offset.size == 1 else None
    return offset if isinstance(offset, int) else None


def _window(cache: Any, behind: int, length: int) -> tuple[mx.array, mx.array] | None:
    """The last rows before ``length``: not one less than ``max_size``, or the cache would grow."""
    count = min(cache.max_size, length)
    rows = []
    for x in (cache.keys, cache.values):
        x = cache._temporal_order(x)
        end = x.shape[-2] - behind
        if end < count:
            return None
        rows.append(mx.contiguous(x[..., end - count : end, :]))
    return rows[0], rows[1]


def _emptied(cache: Any, length: int) -> Any:
    blank = copy.copy(cache)
    blank.keys = blank.values = None
    blank.offset = length
    return blank


def _each(rows: Rows, change: Callable[[mx.array], mx.array]) -> Rows:
    return type(rows)(map(change, rows)) if isinstance(rows, (tuple, list)) else change(rows)


def _first(rows: Rows, length: int) -> Rows:
    """New arrays of the first rows: MLX copies what they share before it is written to."""
    return _each(rows, lambda x: x[..., :length, :])


def _copied(rows: Rows, length: int) -> Rows:
    """The first rows, without holding on to the memory of the others."""
    return _each(rows, lambda x: mx.contiguous(x[..., :length, :]))


def _behind(rows: Rows, length: int) -> Rows:
    return _each(rows, lambda x: mx.contiguous(x[..., length:, :]))


def _joined(rows: Rows, more: Rows) -> Rows:
    if isinstance(rows, (tuple, list)):
        return type(rows)(map(_joined, rows, more))
    return mx.concatenate([rows, more], axis=-2)


def _count(rows: Rows) -> int:
    return (rows[0] if isinstance(rows, (tuple, list)) else rows).shape[-2]


def _arrays(rows: mx.array | Iterable[Any]) -> Iterator[mx.array]:
    if isinstance(rows, mx.array):
        yield rows
    else:
        for part in rows:
            yield from _arrays(part)
