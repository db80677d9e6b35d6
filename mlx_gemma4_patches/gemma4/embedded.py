"""The embeddings of a prompt with pictures or sounds, as a text model is to take them.

Rows of text are those of the embedding table and get scaled by the model. Rows of media are the
soft tokens as the towers make them, and are not: dividing them first to have them multiplied again
changes up to 13 % of their values in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from .placeholders import Placeholders, among


class Embedded:
    """Takes slices and new axes in front, and has a length, as the array of the rows would.

    Args:
        ids: int (L,), 0 where media are, as the per-layer inputs want it.
        rows: (L, hidden), in the type of the text model.
        media: bool (L,), where the rows are soft tokens.
        whole: bool (L,), soft tokens of images that the model looks at as a whole
            (``vision_mask``).
    """

    def __init__(self, ids: mx.array, rows: mx.array, media: mx.array, whole: mx.array):
        self.ids = ids
        self.rows = rows
        self.media = media
        self.whole = whole

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice | None) -> Embedded:
        return Embedded(self.ids[key], self.rows[key], self.media[key], self.whole[key])

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def dtype(self) -> mx.Dtype:
        return self.rows.dtype

    def scale(self, scale: float) -> mx.array:
        """What the rows are multiplied by, (..., L, 1) in their type."""
        return mx.where(self.media, 1.0, scale)[..., None].astype(self.rows.dtype)

    def stops(self, step: int) -> list[int]:
        """Where steps of the prefill end, of about ``step`` tokens, before the last token.

        A step ends before an image that does not fit, and behind one that is longer than a step.
        """
        runs = _runs(self.whole.tolist())
        stops, last = [0], len(self) - 1
        while stops[-1] < last:
            stop = min(stops[-1] + step, last)
            begin, end = next((run for run in runs if run[0] < stop < run[1]), (stop, stop))
            stops.append(begin if begin > stops[-1] else min(end, last))
        return stops[1:]


def embed(
    ids: mx.array,
    table: Callable[[mx.array], mx.array],
    soft_tokens: dict[int, Sequence[mx.array]],
    looks_at_images_as_a_whole: bool,
    placeholders: Placeholders,
) -> Embedded:
    """A prompt with its media.

    Args:
        ids: int (L,), with a placeholder for each soft token.
        table: the text model's embedding of ids, not scaled.
        soft_tokens: of each placeholder the media in their order, (soft tokens, hidden) each.

    Raises:
        ValueError: there are more or fewer placeholders than soft tokens, or the last token is a
            placeholder: an answer begins behind text.
    """
    rows = table(mx.where(among(ids, soft_tokens), 0, ids))
    media = mx.zeros(ids.shape, mx.bool_)
    for token, features in soft_tokens.items():
        here = ids == token
        wanted, given = here.sum().item(), sum(map(len, features))
        if wanted != given:
            raise ValueError(f"the prompt has {wanted} placeholders for {given} soft tokens")
        if given:
            each = mx.concatenate(list(features)).astype(rows.dtype)
            at = mx.maximum(mx.cumsum(here.astype(mx.int32)) - 1, 0)
            rows = mx.where(here[:, None], each[at], rows)
            media = media | here
    if media[-1].item():
        raise ValueError("the prompt ends in a picture or a sound; it needs text behind it")
    whole = placeholders.seen(ids) if looks_at_images_as_a_whole else mx.zeros_like(media)
    return Embedded(placeholders.without(ids), rows, media, whole & media)


def runs(ids: mx.array, token: int) -> list[tuple[int, int]]:
    """Where unbroken runs of a placeholder begin and end in ids (L,)."""
    return _runs((ids == token).tolist())


def _runs(marks: list[Any]) -> list[tuple[int, int]]:
    found, begin = [], None
    for at, mark in enumerate([*marks, False]):
        if mark and begin is None:
            begin = at
        elif not mark and begin is not None:
            found.append((begin, at))
            begin = None
    return found
