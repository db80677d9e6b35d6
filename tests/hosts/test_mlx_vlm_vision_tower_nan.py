"""The soft tokens that mlx-vlm's vision tower makes of images, against transformers'."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny as gemma4_tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract
from tests.hosts.parity import distance, reference

pytest.importorskip("mlx_vlm")

_A, _B = gemma4_tiny.image(3, 4, seed=0), gemma4_tiny.image(6, 4, seed=1)


class TestVisionTowerNan(PatchContract):
    id = "mlx_vlm.vision_tower_nan"

    def untouched(self):
        tower = tiny.model("dense").vision_tower
        # without padding
        tower.default_output_length = tower.pooler.default_output_length = 12
        tower.max_patches = 9 * 12
        image = mx.array(_A[None])
        return [tower(image), tower([image, image])]


def soft_tokens(pixels) -> mx.array:
    model = tiny.model("dense")
    return model.embed_vision(model.vision_tower(pixels))[0]


def test_images_have_the_soft_tokens_of_transformers() -> None:
    expected = reference("dense")["features_images"]
    assert distance(soft_tokens(mx.array(_A[None])), expected[:12]) < 1e-4
    assert distance(soft_tokens(mx.array(_B[None])), expected[12:]) < 1e-4


@pytest.mark.parametrize("kind", [mx.array, np.array])
def test_images_of_different_size_are_seen_one_after_the_other(kind) -> None:
    expected = reference("dense")["features_images"]
    assert distance(soft_tokens([kind(_A), kind(_B)]), expected) < 1e-4
