"""A prompt with images that its prefix cache gives back is answered as if it were new."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched
from tests.hosts.pictures import square

ID = "mlx_vlm.apc_images"
TEXT = tiny.prompt(64)
PICTURE = [500, *[502] * 4, 501]
PROMPT = [*TEXT[:6], *PICTURE, *TEXT[6:8], *PICTURE, *TEXT[8:50]]

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def new_cache():
    return pytest.importorskip("mlx_vlm.apc").APCManager(num_blocks=64)


def wide(seed):
    return mx.array(tiny.image(1, 4, seed))


class TestApcImages(PatchContract):
    id = ID

    def untouched(self):
        from mlx_vlm.apc import hash_image_payload

        arrays = (square(1)[None], np.array(square(1)), None)
        names = ("a.png", ["a.png", "b.png"], b"bytes")
        return [
            *(hash_image_payload(pixel_values=values) for values in arrays),
            *(hash_image_payload(image_ref=name) for name in names),
        ]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    new_cache()  # or skip
    return answers.load("e2b", tmp_path_factory.mktemp("e2b"))  # others keep no images


@pytest.mark.parametrize(
    "known, asked",
    [
        ([square(1), wide(2)], [square(3), wide(4)]),
        ([square(1), wide(2)], [square(1), wide(4)]),
        ([square(1), wide(2)], [wide(2), square(1)]),
        (mx.stack([square(1), square(2)]), mx.stack([square(2), square(1)])),
    ],
    ids=["others", "another second", "other order", "of one size"],
)
def test_other_images_are_answered_as_if_the_prompt_were_new(loaded, known, asked):
    with patched(ID):
        manager = new_cache()
        loaded.answer(PROMPT, 1, apc_manager=manager, pixel_values=known)
        further = PROMPT + TEXT[50:54]
        seen = loaded.answer(further, 4, apc_manager=manager, pixel_values=asked)
        assert manager.stats_snapshot()["matched_tokens"] == 0
        assert seen == loaded.answer(further, 4, pixel_values=asked)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_same_images_are_reused(loaded, dtype):
    with patched(ID):
        manager = new_cache()
        pixels = [square(1).astype(dtype), wide(2).astype(dtype)]
        loaded.answer(PROMPT, 1, apc_manager=manager, pixel_values=pixels)
        further = PROMPT + TEXT[50:54]
        seen = loaded.answer(further, 4, apc_manager=manager, pixel_values=pixels)
        assert manager.stats_snapshot()["matched_tokens"] > 16
        assert seen == loaded.answer(further, 4, pixel_values=pixels)
