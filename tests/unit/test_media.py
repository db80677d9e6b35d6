"""The hash by which prompts of the same token ids differ."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4_patches.gemma4.media import digest

PIXELS = mx.arange(24, dtype=mx.float32).reshape(2, 3, 4)


def test_a_prompt_without_media_has_none() -> None:
    assert digest({"input_ids": PIXELS, "pixel_values": None}) == b""


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.uint8])
def test_equal_pictures_are_equal(dtype: mx.Dtype) -> None:
    one = digest({"pixel_values": PIXELS.astype(dtype)})
    assert one == digest({"pixel_values": PIXELS.astype(dtype), "max_tokens": 3})
    assert one == digest({"pixel_values": PIXELS.swapaxes(0, 1).astype(dtype).swapaxes(0, 1)})


def test_numpy_and_mlx_are_alike() -> None:
    assert digest({"pixel_values": np.array(PIXELS)}) == digest({"pixel_values": PIXELS})


def test_what_differs_is_told_apart() -> None:
    given = [
        {"pixel_values": PIXELS},
        {"pixel_values": PIXELS.astype(mx.bfloat16)},
        {"pixel_values": PIXELS[::-1]},
        {"pixel_values": PIXELS.reshape(3, 2, 4)},
        {"pixel_values": list(PIXELS)},
        {"pixel_values": list(PIXELS)[::-1]},
        {"pixel_values": PIXELS, "image_position_ids": PIXELS},
        {"pixel_values_videos": PIXELS},
        {"input_features": PIXELS},
        {"pixel_values": PIXELS + mx.array(1e-6)},
        {"pixel_values": [PIXELS, PIXELS[0]]},
        {"pixel_values": [PIXELS[0], PIXELS]},
    ]
    assert len({digest(inputs) for inputs in given}) == len(given)
