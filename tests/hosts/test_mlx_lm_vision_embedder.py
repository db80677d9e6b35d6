"""mlx_lm.vision_embedder: the weights of the 12B's vision embedder do not keep it from loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import checkpoints
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import TOLERANCE, distance, reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm.utils import load_model

ID = "mlx_lm.vision_embedder"


class TestVisionEmbedder(PatchContract):
    id = ID

    def untouched(self) -> Any:
        ids = reference("dense")["ids_40"][None]
        return [text_model(shape)(ids) for shape in tiny.SHAPES]


@pytest.mark.parametrize("start", ["", "model."], ids=["named by the hosts", "original"])
def test_the_logits_are_those_of_transformers(tmp_path: Path, start: str) -> None:
    embedder = {
        f"{start}vision_embedder.patch_dense.weight": mx.zeros((192, 64)),
        f"{start}vision_embedder.pos_embedding": mx.zeros((8, 2, 192)),
    }
    folder = checkpoints.change(
        tiny.save("dense", tmp_path), tensors=lambda tensors: {**tensors, **embedder}
    )
    with patched(ID):
        model, _ = load_model(folder)
    expected = reference("dense")
    assert distance(model(expected["ids_40"][None])[0], expected["logits_40"]) < TOLERANCE


def test_other_strange_weights_are_still_refused(tmp_path: Path) -> None:
    strange = {"model.text_embedder.weight": mx.zeros((4, 4))}
    folder = checkpoints.change(
        tiny.save("dense", tmp_path), tensors=lambda tensors: {**tensors, **strange}
    )
    with patched(ID), pytest.raises(ValueError, match="not in model"):
        load_model(folder)
