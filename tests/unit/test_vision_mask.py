"""The mask of images, against the rule written out pair by pair."""

from __future__ import annotations

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import vision_mask

_ROWS = st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=3)


def written_out(images: list[bool], past: int, window: int, padding: int) -> list[list[bool]]:
    def same_image(q: int, k: int) -> bool:
        return k >= 0 and all(images[min(q, k) : max(q, k) + 1])

    queries, keys = range(len(images)), range(-past, len(images))
    return [
        [k > q - window and k + past >= padding and (k <= q or same_image(q, k)) for k in keys]
        for q in queries
    ]


@given(rows=_ROWS, past=st.integers(0, 5), window=st.integers(1, 9), data=st.data())
def test_it_is_the_window_and_causal_or_the_same_image(rows, past, window, data) -> None:
    padding = [data.draw(st.integers(0, past)) for _ in rows]
    text = [False] * 7
    causal = mx.array([[written_out(text, past, window, pad)] for pad in padding])
    expected = [
        [written_out(row, past, window, pad)] for row, pad in zip(rows, padding, strict=True)
    ]
    assert vision_mask.sliding_mask(causal, mx.array(rows)).tolist() == expected


@pytest.mark.parametrize("past", [0, 3])
def test_a_mask_without_rows_serves_all_of_them(past: int) -> None:
    causal = mx.array(written_out([False] * 4, past, 3, 0))
    rows = [[True, True, False, True], [False] * 4]
    expected = [[written_out(row, past, 3, 0)] for row in rows]
    assert vision_mask.sliding_mask(causal, mx.array(rows)).tolist() == expected
