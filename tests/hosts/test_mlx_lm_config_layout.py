"""mlx_lm.config_layout: what transformers saves loads as it loads there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_gemma4_patches.gemma4 import layout, tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import checkpoints, tokenizer
from tests.hosts.contract import PatchContract, equal, patched, stock
from tests.hosts.parity import TOLERANCE, distance, reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm import convert
from mlx_lm.utils import load_model

ID = "mlx_lm.config_layout"
TABLE = "model.language_model.embed_tokens.weight"


class TestConfigLayout(PatchContract):
    id = ID

    def untouched(self) -> Any:
        from mlx_lm.models import gemma4, gemma4_text

        config = tiny.config("dense")
        config["text_config"]["tie_word_embeddings"] = False
        untied = gemma4.Model(gemma4.ModelArgs.from_dict(config))
        weights = checkpoints.host_names(tiny.weights("dense"))
        weights["language_model.lm_head.weight"] = weights[
            "language_model.model.embed_tokens.weight"
        ]
        untied.load_weights(list(untied.sanitize(weights).items()))
        ids = reference("dense")["ids_40"][None]
        args = [gemma4_text.ModelArgs.from_dict(tiny.config(s)["text_config"]) for s in tiny.SHAPES]
        models = [*map(text_model, tiny.SHAPES), untied]
        return [*map(vars, args), config, *(model(ids) for model in models)]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def error(folder: Path, shape: str) -> float:
    """The distance of the logits from transformers'."""
    expected = reference(shape)
    model, _ = load_model(folder)
    return distance(model(expected["ids_40"][None])[0], expected["logits_40"])


@pytest.mark.parametrize("shape", tiny.SHAPES)
class TestConfig:
    def test_as_transformers_writes_it(self, tmp_path: Path, shape: str) -> None:
        folder = checkpoints.change(tiny.save(shape, tmp_path), layout.as_transformers)
        assert error(folder, shape) < TOLERANCE

    def test_as_transformers_writes_that_of_the_text_model(
        self, tmp_path: Path, shape: str
    ) -> None:
        folder = checkpoints.change(
            tiny.save(shape, tmp_path),
            lambda config: checkpoints.text_only(layout.as_transformers(config)),
            checkpoints.text_tensors,
        )
        assert error(folder, shape) < TOLERANCE

    @pytest.mark.parametrize("wrong", [None, 262_144])
    def test_the_vocabulary_is_that_of_the_text_model(
        self, tmp_path: Path, shape: str, wrong: int | None
    ) -> None:
        def outside(config: dict[str, Any]) -> None:
            del config["vocab_size"]
            if wrong:
                config["vocab_size"] = wrong

        assert error(checkpoints.change(tiny.save(shape, tmp_path), outside), shape) < TOLERANCE

    def test_a_conversion_of_it_loads_without_the_patch(self, tmp_path: Path, shape: str) -> None:
        folder = checkpoints.change(tiny.save(shape, tmp_path / "hf"), layout.as_transformers)
        tokenizer.save(folder)
        convert(str(folder), str(tmp_path / "mlx"), quantize=True, q_bits=8, q_group_size=64)
        with stock(ID):
            model, _ = load_model(tmp_path / "mlx")
        plain = text_model(shape)
        nn.quantize(plain, 64, 8)
        ids = reference(shape)["ids_40"][None]
        assert equal(model(ids), plain(ids))


def test_a_unified_model_has_no_per_layer_inputs(tmp_path: Path) -> None:
    def unified(config: dict[str, Any]) -> dict[str, Any]:
        config = layout.as_transformers(config)
        config["model_type"] = "gemma4_unified"
        text = config["text_config"]
        text["model_type"] = "gemma4_unified_text"
        for name in ("hidden_size_per_layer_input", "vocab_size_per_layer_input"):
            del text[name]
        return config

    folder = checkpoints.change(tiny.save("dense", tmp_path), unified)
    assert error(folder, "dense") < TOLERANCE


def head(tensors: checkpoints.Tensors, reverse: bool) -> checkpoints.Tensors:
    table = tensors[TABLE]
    return {**tensors, "lm_head.weight": table[::-1] if reverse else table}


def in_text_model(tensors: checkpoints.Tensors, reverse: bool) -> checkpoints.Tensors:
    made = head(tensors, reverse)
    return {**checkpoints.text_tensors(made), "lm_head.weight": made["lm_head.weight"]}


def named_by_hosts(tensors: checkpoints.Tensors, reverse: bool) -> checkpoints.Tensors:
    made = checkpoints.host_names(head(tensors, reverse))
    made["language_model.lm_head.weight"] = made.pop("lm_head.weight")
    return made


HEADS: dict[str, tuple[Any, Any]] = {
    "original": (dict, head),
    "text model alone": (checkpoints.text_only, in_text_model),
    "named by the hosts": (dict, named_by_hosts),
}


@pytest.mark.parametrize(
    "tied", [(True, True), (False, True), (False, False), (None, None)], ids=str
)
@pytest.mark.parametrize("form", HEADS)
class TestHead:
    def folder(self, place: Path, form: str, tied: tuple[Any, Any], reverse: bool) -> Path:
        rewrite, tensors = HEADS[form]

        def config(old: dict[str, Any]) -> dict[str, Any]:
            for settings, value in zip((old, old["text_config"]), tied, strict=True):
                settings["tie_word_embeddings"] = value
                if value is None:
                    del settings["tie_word_embeddings"]
            return rewrite(old)

        return checkpoints.change(
            tiny.save("dense", place), config, partial(tensors, reverse=reverse)
        )

    def test_one_that_repeats_the_table_changes_nothing(
        self, tmp_path: Path, form: str, tied: tuple[Any, Any]
    ) -> None:
        assert error(self.folder(tmp_path, form, tied, reverse=False), "dense") < TOLERANCE

    def test_another_is_used_as_transformers_does_whatever_the_config_says(
        self, tmp_path: Path, form: str, tied: tuple[Any, Any]
    ) -> None:
        model, _ = load_model(self.folder(tmp_path, form, tied, reverse=True))
        expected = reference("dense")
        logits = model(expected["ids_40"][None])[0]
        assert distance(logits[:, ::-1], expected["logits_40"]) < TOLERANCE


@pytest.mark.parametrize("reverse", [False, True], ids=["a copy", "another"])
def test_a_conversion_with_a_head_loads_again(tmp_path: Path, reverse: bool) -> None:
    folder = checkpoints.change(
        tiny.save("dense", tmp_path / "hf"), tensors=partial(head, reverse=reverse)
    )
    tokenizer.save(folder)
    convert(str(folder), str(tmp_path / "mlx"), quantize=True, q_bits=8, q_group_size=64)
    model, _ = load_model(tmp_path / "mlx")
    plain = text_model("dense")
    nn.quantize(plain, 64, 8)
    ids = reference("dense")["ids_40"][None]
    logits = model(ids)
    assert equal(logits[..., ::-1] if reverse else logits, plain(ids))


def test_a_head_without_any_table_is_refused(tmp_path: Path) -> None:
    def tensors(old: checkpoints.Tensors) -> checkpoints.Tensors:
        return {**old, "lm_head.weight": mx.zeros((4, 4))}

    folder = checkpoints.change(tiny.save("dense", tmp_path), tensors=tensors)
    with pytest.raises(ValueError, match="shape"):
        load_model(folder)
