"""mlx_vlm.config_layout: what transformers saves loads as Google's layout does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import layout, tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny as mlx_vlm_tiny
from tests.hosts import checkpoints, folders, tokenizer
from tests.hosts.contract import PatchContract, equal, patched, stock

pytest.importorskip("mlx_vlm.models.gemma4")
from mlx_vlm import convert
from mlx_vlm.utils import load_config, load_model

ID = "mlx_vlm.config_layout"
PROMPT = mx.array([tiny.prompt(40)])


def logits(model: Any) -> mx.array:
    made = model.language_model(PROMPT, cache=model.language_model.make_cache())
    return made.logits


class TestConfigLayout(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def untouched(self) -> Any:
        google = [tiny.save(shape, self.folder / shape) for shape in tiny.SHAPES]
        llama = self.folder / "llama"
        llama.mkdir(exist_ok=True)
        folders.other_model(llama, generation=b"{}", config=[1])
        return [load_config(folder) for folder in (*google, llama)] + [
            logits(load_model(folder)) for folder in google
        ]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_as_transformers_writes_it(tmp_path: Path, shape: str) -> None:
    folder = checkpoints.change(tiny.save(shape, tmp_path), layout.as_transformers)
    assert equal(logits(load_model(folder)), logits(mlx_vlm_tiny.model(shape)))


@pytest.mark.parametrize("shape", ["moe", "dense"])
def test_without_the_patch_it_does_not_load(tmp_path: Path, shape: str) -> None:
    folder = checkpoints.change(tiny.save(shape, tmp_path), layout.as_transformers)
    with stock(ID), pytest.raises(ValueError, match="Expected shape"):
        load_model(folder)


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_as_transformers_writes_that_of_the_text_model(tmp_path: Path, shape: str) -> None:
    folder = checkpoints.change(
        tiny.save(shape, tmp_path),
        lambda config: checkpoints.text_only(layout.as_transformers(config)),
        checkpoints.text_tensors,
    )
    try:
        model = load_model(folder)
    except ValueError as error:
        assert "gemma4_text not supported" in str(error)
        pytest.skip("up to 0.5.0 mlx-vlm knows no gemma4_text")
    said = model.language_model(PROMPT, cache=model.language_model.make_cache())
    expected = logits(mlx_vlm_tiny.model(shape))
    assert mx.abs(said.logits - expected).max().item() < 1e-3


def test_a_conversion_of_it_loads_without_the_patch(tmp_path: Path) -> None:
    folder = checkpoints.change(tiny.save("dense", tmp_path / "hf"), layout.as_transformers)
    tokenizer.save(folder)
    convert(str(folder), str(tmp_path / "mlx"))
    with stock(ID):
        model = load_model(tmp_path / "mlx")
    assert equal(logits(model), logits(load_model(folder)))
