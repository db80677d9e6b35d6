"""mlx_vlm.text_only: what a checkpoint does not name is not waited for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny as mlx_vlm_tiny
from tests.hosts import checkpoints, script, tokenizer
from tests.hosts.checkpoints import Tensors
from tests.hosts.contract import PatchContract, equal, patched

pytest.importorskip("mlx_vlm.models.gemma4")
from mlx_vlm import load, stream_generate
from mlx_vlm.utils import load_model

ID = "mlx_vlm.text_only"
PROMPT = mx.array([tiny.prompt(40)])


def logits(model: Any) -> mx.array:
    return model.language_model(PROMPT, cache=model.language_model.make_cache()).logits


class TestTextOnly(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def untouched(self) -> Any:
        models = [load_model(tiny.save(s, self.folder / s, shared_kv=True)) for s in tiny.SHAPES]
        seen: list[Any] = [logits(model) for model in models]
        for model in models:
            tower = model.vision_tower.patch_embedder.input_proj.weight
            seen += [type(model).__module__, model.audio_tower is None, sorted(model), tower]
        return seen


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def text(tensors: Tensors) -> Tensors:
    return {k: v for k, v in tensors.items() if "vision" not in k}


def without(*names: str) -> Any:
    return lambda config: {key: value for key, value in config.items() if key not in names}


def null(name: str) -> Any:
    return lambda config: {**config, name: None}


CONFIGS = {
    "as it is": None,
    "no audio_config": without("audio_config"),
    "no vision_config": without("vision_config"),
    "vision_config null": null("vision_config"),
    "neither": without("audio_config", "vision_config"),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_text_alone(tmp_path: Path, shape: str, config: str) -> None:
    folder = tiny.save(shape, tmp_path, shared_kv=True)
    model = load_model(checkpoints.change(folder, CONFIGS[config], text))
    assert equal(logits(model), logits(mlx_vlm_tiny.model(shape)))
    assert model.vision_tower is None and model.audio_tower is None


def test_a_quantized_conversion_of_text_alone(tmp_path: Path) -> None:
    plain = mlx_vlm_tiny.model("dense")
    nn.quantize(plain.language_model, checkpoints.GROUP, 8)
    folder = checkpoints.change(
        tiny.save("dense", tmp_path),
        lambda config: checkpoints.quantization(config, 8),
        lambda _: text(dict(tree_flatten(plain.parameters()))),
        format="mlx",
    )
    assert equal(logits(load_model(folder)), logits(plain))


def test_images_without_audio_config(tmp_path: Path) -> None:
    folder = checkpoints.change(tiny.save("dense", tmp_path), without("audio_config"))
    model, whole = load_model(folder), mlx_vlm_tiny.model("dense")
    assert model.audio_tower is None
    weights = [m.vision_tower.patch_embedder.input_proj.weight for m in (model, whole)]
    assert equal(*weights)


def test_it_generates(tmp_path: Path) -> None:
    folder = checkpoints.change(tiny.save("dense", tmp_path), null("vision_config"), text)
    tokenizer.save(folder)
    model, processor = load(str(folder))
    said = tokenizer.ids("so")
    with script.says("mlx_vlm", [*said, 106]):
        parts = list(stream_generate(model, processor, "hi", max_tokens=4))
    assert "".join(part.text for part in parts) == "so"


def test_a_tower_with_a_part_of_its_weights_is_missed(tmp_path: Path) -> None:
    def tensors(old: Tensors) -> Tensors:
        return {k: v for k, v in old.items() if "vision_tower.encoder" not in k}

    folder = checkpoints.change(tiny.save("dense", tmp_path), tensors=tensors)
    with pytest.raises(ValueError, match="Missing"):
        load_model(folder)


def test_a_tower_that_the_index_names_is_missed(tmp_path: Path) -> None:
    names = dict.fromkeys(checkpoints.host_names(tiny.weights("dense")), "model.safetensors")
    folder = checkpoints.change(tiny.save("dense", tmp_path), tensors=text)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match="Missing"):
        load_model(folder)


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = checkpoints.change(tiny.save("dense", tmp_path), null("vision_config"), text)
    with caplog.at_level(logging.WARNING):
        load_model(folder)
    assert "vision_tower" in caplog.text
