"""mlx_vlm.tied_head: a head that repeats the embedding table changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny as mlx_vlm_tiny
from tests.hosts import checkpoints
from tests.hosts.checkpoints import Tensors
from tests.hosts.contract import PatchContract, equal, patched, stock

pytest.importorskip("mlx_vlm.models.gemma4")
from mlx_vlm.utils import load_model, sanitize_weights

ID = "mlx_vlm.tied_head"
TABLE = "model.language_model.embed_tokens.weight"
PROMPT = mx.array([tiny.prompt(40)])

named = pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight"]
)


class TestTiedHead(PatchContract):
    id = ID

    def untouched(self) -> Any:
        other = other_models.gemma3n_vlm()
        mine = mlx_vlm_tiny.model("dense")
        return [
            sanitize_weights(mine, tiny.weights("dense")),
            sanitize_weights(other, {"lm_head.weight": mx.ones(2), "model.x": mx.zeros(2)}),
        ]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def with_head(name: str, change: Callable[[mx.array], mx.array] = lambda table: table):
    return lambda tensors: {**tensors, name: change(tensors[TABLE])}


def logits(model: Any) -> mx.array:
    return model.language_model(PROMPT, cache=model.language_model.make_cache()).logits


@named
@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_a_copy_is_left_out(tmp_path: Path, name: str, shape: str) -> None:
    folder = checkpoints.change(tiny.save(shape, tmp_path), tensors=with_head(name))
    assert equal(logits(load_model(folder)), logits(mlx_vlm_tiny.model(shape)))
    with stock(ID), pytest.raises(ValueError, match="not in model"):
        load_model(folder)


def test_a_copy_beside_the_text_model_alone_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("mlx_vlm.models.gemma4_text")  # from 0.6.6 on

    def tensors(old: Tensors) -> Tensors:
        return {**checkpoints.text_tensors(old), "lm_head.weight": old[TABLE]}

    folder = checkpoints.change(tiny.save("dense", tmp_path), checkpoints.text_only, tensors)
    expected = logits(mlx_vlm_tiny.model("dense"))
    assert mx.abs(logits(load_model(folder)) - expected).max().item() < 1e-3


@named
@pytest.mark.parametrize("change", [lambda table: table[::-1], lambda table: table[:4]])
def test_another_is_refused_not_dropped(tmp_path: Path, name: str, change: Any) -> None:
    folder = checkpoints.change(tiny.save("dense", tmp_path), tensors=with_head(name, change))
    with pytest.raises(ValueError, match="not in model"):
        load_model(folder)
