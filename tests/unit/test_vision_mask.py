"""The mask of images, against the rule written out pair by pair."""

from __future__ import annotations

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tiny, vision_mask

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


# pairs of tokens that attend in the text of the probe, measured of Gemma4UnifiedModel with
# transformers 5.24: by create_masks_for_generate, whose rule is ours, and by forward
OURS = {"full_attention": 946, "sliding_attention": 774}
FORWARD = {"full_attention": 1152, "sliding_attention": 784}


def _of_the_12b(counted: dict[str, int], as_forward: bool):
    def layer_sees(layer_type: str, ids: mx.array) -> mx.array:
        config = tiny.config("dense")
        length, place = ids.shape[1], mx.arange(ids.shape[1])
        images = ids == config["image_token_id"]
        mask = place <= place[:, None]
        if layer_type == "sliding_attention":
            mask &= place > place[:, None] - config["text_config"]["sliding_window"]
        if as_forward:
            run = mx.cumsum(~images, axis=1)  # the same number within an image
            both = images[0] & images[0][:, None]
            mask |= both & (run[0] == run[0][:, None])
        elif layer_type == "sliding_attention":
            mask = vision_mask.sliding_mask(mask, images)[0, 0]
        counted[layer_type] = mask.sum().item()
        assert mask.shape == (length, length)
        return mask

    return layer_sees


def test_of_the_two_rules_that_transformers_has_for_the_12b_it_is_that_of_its_masks() -> None:
    counted: dict[str, int] = {}
    assert not vision_mask.probe(_of_the_12b(counted, as_forward=False)).faulty
    assert counted == OURS
    assert vision_mask.probe(_of_the_12b(counted, as_forward=True)).faulty
    assert counted == FORWARD
