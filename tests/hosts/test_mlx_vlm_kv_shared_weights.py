"""mlx_vlm.kv_shared_weights: every layout of E2B loads, with and without the shared layers' k/v."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import shared_kv, tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny as mlx_vlm_tiny
from tests.hosts import checkpoints
from tests.hosts.contract import PatchContract, equal, patched

pytest.importorskip("mlx_vlm.models.gemma4")
from mlx_vlm.utils import load_model

ID = "mlx_vlm.kv_shared_weights"
PROMPT = mx.array([tiny.prompt(40)])

present = pytest.mark.parametrize("present", [True, False], ids=["with k/v", "without k/v"])


class TestKvSharedWeights(PatchContract):
    id = ID

    def untouched(self) -> Any:
        models = [mlx_vlm_tiny.model(shape).language_model for shape in tiny.SHAPES]
        models.append(other_models.gemma3n_vlm())
        return [model(PROMPT, cache=model.make_cache()).logits for model in models]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def logits(model: Any) -> mx.array:
    """What test_mlx_vlm_parity compares with transformers, of another model."""
    return model.language_model(PROMPT, cache=model.language_model.make_cache()).logits


@present
def test_an_original_checkpoint(tmp_path: Path, present: bool) -> None:
    model = load_model(tiny.save("e2b", tmp_path, shared_kv=present))
    assert equal(logits(model), logits(mlx_vlm_tiny.model("e2b")))


@present
def test_a_conversion(tmp_path: Path, present: bool) -> None:
    folder = tiny.save("e2b", tmp_path, shared_kv=present)
    checkpoints.change(folder, tensors=checkpoints.host_names, format="mlx")
    assert equal(logits(load_model(folder)), logits(mlx_vlm_tiny.model("e2b")))


@pytest.mark.parametrize("bits", [4, 8])
@present
def test_a_quantized_conversion(tmp_path: Path, bits: int, present: bool) -> None:
    plain = mlx_vlm_tiny.model("e2b")
    nn.quantize(plain.language_model, checkpoints.GROUP, bits)  # not all layers of all releases
    converted = dict(tree_flatten(plain.parameters()))
    if present:
        whole = checkpoints.quantized(tiny.weights("e2b", shared_kv=True), bits)
        converted |= {k: v for k, v in whole.items() if k not in shared_kv.without(whole, 6)}
    else:
        converted = shared_kv.without(converted, 6)
    folder = checkpoints.change(
        tiny.save("e2b", tmp_path),
        partial(checkpoints.quantization, bits=bits),
        lambda _: converted,
        format="mlx",
    )
    assert equal(logits(load_model(folder)), logits(plain))


@present
def test_what_is_saved_loads_again(tmp_path: Path, present: bool) -> None:
    model = load_model(tiny.save("e2b", tmp_path, shared_kv=present))
    expected = logits(model)
    saved = dict(tree_flatten(model.parameters()))
    checkpoints.change(tmp_path, tensors=lambda _: saved, format="mlx")
    assert equal(logits(load_model(tmp_path)), expected)


def test_a_shared_layer_has_no_parameters_for_keys_and_values(tmp_path: Path) -> None:
    model = load_model(tiny.save("e2b", tmp_path, shared_kv=True))
    layer = model.language_model.model.layers[-1].self_attn
    names = [name for name, _ in tree_flatten(layer.parameters())]
    assert names and not [name for name in names if name.startswith(("k_", "v_"))]


def test_what_is_missing_elsewhere_is_still_missed(tmp_path: Path) -> None:
    name = "model.language_model.layers.0.self_attn.k_proj.weight"
    folder = checkpoints.change(
        tiny.save("e2b", tmp_path), tensors=lambda t: {k: v for k, v in t.items() if k != name}
    )
    with pytest.raises(ValueError, match="Missing 1 parameters"):
        load_model(folder)
