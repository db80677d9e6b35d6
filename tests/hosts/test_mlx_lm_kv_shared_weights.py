"""mlx_lm.kv_shared_weights: every layout of E2B loads, with and without the shared layers' k/v."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import checkpoints
from tests.hosts.contract import PatchContract, equal, patched
from tests.hosts.parity import TOLERANCE, distance, reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm.utils import load_model, save_model

ID = "mlx_lm.kv_shared_weights"

PLAIN: dict[str, tuple[Any, Any]] = {
    "original": (None, None),
    "named by the hosts": (None, checkpoints.host_names),
    "text model alone": (checkpoints.text_only, checkpoints.text_tensors),
}


class TestKvSharedWeights(PatchContract):
    id = ID

    def untouched(self) -> Any:
        ids = reference("e2b")["ids_40"][None]
        models = [*map(text_model, tiny.SHAPES), other_models.gemma3n(), other_models.llama()]
        return [model(ids) for model in models]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def logits(model: Any) -> Any:
    return model(reference("e2b")["ids_40"][None])[0]


@pytest.mark.parametrize("present", [True, False], ids=["with k/v", "without k/v"])
@pytest.mark.parametrize("layout", PLAIN)
def test_the_logits_are_those_of_transformers(tmp_path: Path, layout: str, present: bool) -> None:
    folder = tiny.save("e2b", tmp_path, shared_kv=present)
    model, _ = load_model(checkpoints.change(folder, *PLAIN[layout]))
    assert distance(logits(model), reference("e2b")["logits_40"]) < TOLERANCE


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("present", [True, False], ids=["with k/v", "without k/v"])
def test_a_quantized_checkpoint_is_the_plain_one_quantized(
    tmp_path: Path, bits: int, present: bool
) -> None:
    plain = text_model("e2b")
    nn.quantize(plain, checkpoints.GROUP, bits)
    folder = checkpoints.change(
        tiny.save("e2b", tmp_path, shared_kv=present),
        partial(checkpoints.quantization, bits=bits),
        partial(checkpoints.quantized, bits=bits),
    )
    model, _ = load_model(folder)
    assert equal(logits(model), logits(plain))


@pytest.mark.parametrize("present", [True, False], ids=["with k/v", "without k/v"])
def test_what_is_saved_loads_again(tmp_path: Path, present: bool) -> None:
    model, _ = load_model(tiny.save("e2b", tmp_path / "original", shared_kv=present))
    again = tiny.save("e2b", tmp_path / "saved")
    (again / "model.safetensors").unlink()
    save_model(again, model)
    assert equal(logits(load_model(again)[0]), logits(model))


def test_a_shared_layer_has_no_parameters_for_keys_and_values(tmp_path: Path) -> None:
    model, _ = load_model(tiny.save("e2b", tmp_path, shared_kv=True))
    names = [name for name, _ in tree_flatten(model.layers[-1].parameters())]
    assert not [name for name in names if ".k_" in name or ".v_" in name]
