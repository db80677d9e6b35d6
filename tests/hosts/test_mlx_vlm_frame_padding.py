"""A picture smaller than the tower's room is read alone, and its soft tokens stay the same."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny as gemma4_tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract, equal, patched, stock
from tests.hosts.parity import distance, reference

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.frame_padding"
_A, _B = gemma4_tiny.image(3, 4, seed=0), gemma4_tiny.image(6, 4, seed=1)


class TestFramePadding(PatchContract):
    id = ID

    def untouched(self):
        tower = tiny.model_for(12).vision_tower
        image = mx.array(_A[None])
        return [tower(image), tower([image, image]), tower(image[..., :64, :64])]


def test_the_soft_tokens_are_those_of_transformers() -> None:
    model = tiny.model_for(70)
    expected = reference("dense")["features_images"]
    with patched(ID):
        found = model.embed_vision(model.vision_tower([mx.array(_A), mx.array(_B)]))[0]
    assert distance(found, expected) < 1e-4
    assert model.vision_tower.max_patches == 9 * 70


def test_a_video_is_read_as_it_was() -> None:
    tower = tiny.model_for(70).vision_tower
    frames = mx.array(_A) + mx.arange(5).reshape(5, 1, 1, 1) / 10
    with stock(ID):
        expected = tower(frames)
    with patched(ID):
        assert equal(tower(frames), expected)
