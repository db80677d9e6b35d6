"""Pictures of more than 280 soft tokens are seen, each as in a tower made for as many."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny as gemma4_tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import distance, reference

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.soft_token_budget"
_A, _B = gemma4_tiny.image(3, 4, seed=0), gemma4_tiny.image(6, 4, seed=1)


class TestSoftTokenBudget(PatchContract):
    id = ID

    def untouched(self):
        tower = tiny.model_for(12).vision_tower
        image = mx.array(_A[None])
        return [tower(image), tower([image, image])]


@pytest.mark.parametrize("length", [6, 12, 20])
def test_larger_pictures_have_the_soft_tokens_of_transformers(length: int) -> None:
    model = tiny.model_for(length)
    expected = reference("dense")["features_images"]
    with patched(ID):
        found = model.embed_vision(model.vision_tower([mx.array(_A), mx.array(_B)]))[0]
    assert distance(found, expected) < 1e-4
    assert model.vision_tower.max_patches == 9 * length
    assert model.vision_tower.default_output_length == length
