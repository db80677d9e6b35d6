"""mlx_lm.unified_type: the 12B's model types load, as what they are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import checkpoints
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.parity import TOLERANCE, distance, reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm.utils import _get_classes, load_model

ID = "mlx_lm.unified_type"


def unified(config: dict[str, Any]) -> None:
    config["model_type"] = "gemma4_unified"
    config["text_config"]["model_type"] = "gemma4_unified_text"


class TestUnifiedType(PatchContract):
    id = ID

    def untouched(self) -> Any:
        seen = []
        for name in ("gemma4", "gemma4_text", "llama", "mistral", "llava", "gemma4_other", ""):
            try:
                seen.append([kind.__module__ for kind in _get_classes({"model_type": name})])
            except ValueError as error:
                seen.append(str(error))
        return seen


def test_the_unified_model_has_the_logits_of_transformers(tmp_path: Path) -> None:
    folder = checkpoints.change(tiny.save("dense", tmp_path), unified)
    with patched(ID):
        model, _ = load_model(folder)
    expected = reference("dense")
    assert distance(model(expected["ids_40"][None])[0], expected["logits_40"]) < TOLERANCE


def test_so_has_its_text_model_alone_which_stock_refuses(tmp_path: Path) -> None:
    folder = checkpoints.change(
        tiny.save("dense", tmp_path),
        partial(checkpoints.text_only, model_type="gemma4_unified_text"),
        checkpoints.text_tensors,
    )
    with patched(ID):
        model, _ = load_model(folder)
    expected = reference("dense")
    assert distance(model(expected["ids_40"][None])[0], expected["logits_40"]) < TOLERANCE
    with stock(ID), pytest.raises(ValueError, match="gemma4_unified_text not supported"):
        load_model(folder)
