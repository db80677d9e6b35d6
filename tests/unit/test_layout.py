"""Gemma 4's config.json as transformers writes it, in the terms of Google's."""

from __future__ import annotations

import copy

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import layout, tiny

GLOBAL = ("global_head_dim", "num_global_key_value_heads")


@pytest.fixture
def text():
    return layout.as_transformers(tiny.config("dense"))["text_config"]


@pytest.mark.parametrize("shape", ["moe", "dense"])
def test_there_and_back_nothing_is_lost(shape):
    google = tiny.config(shape)["text_config"]
    other = layout.as_transformers(tiny.config(shape))["text_config"]
    assert not set(GLOBAL) & set(other)
    assert layout.settings_left_out(other) == {name: google[name] for name in GLOBAL}


def test_heads_that_are_not_named_are_those_of_every_layer():
    google = tiny.config("e2b")["text_config"]
    other = layout.as_transformers(tiny.config("e2b"))["text_config"]
    assert layout.settings_left_out(other) == {
        "global_head_dim": google["global_head_dim"],
        "num_global_key_value_heads": google["num_key_value_heads"],
    }


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_nothing_is_left_out_of_googles_layout(shape):
    text = tiny.config(shape)["text_config"]
    before = copy.deepcopy(text)
    assert layout.settings_left_out(text) == {}
    assert text == before


def test_layers_without_sizes_of_their_own_have_those_of_all(text):
    text["per_layer_config"] = {}
    assert layout.settings_left_out(text) == {
        "global_head_dim": text["head_dim"],
        "num_global_key_value_heads": text["num_key_value_heads"],
    }


@pytest.mark.parametrize(
    "layers",
    [
        {"2": {"head_dim": 64}},
        {"1": {"head_dim": 64}, "2": {"head_dim": 64}, "5": {"head_dim": 64}},
        {"2": {"intermediate_size": 64}, "5": {"intermediate_size": 64}},
        {"0": {"skip": ["mlp"]}},
    ],
    ids=["one full layer", "a sliding layer", "another size", "a layer skipped"],
)
def test_layers_that_google_has_no_words_for_are_left_alone(text, layers):
    text["per_layer_config"] = layers
    assert layout.settings_left_out(text) == {}


def test_other_heads_need_keys_that_are_values(text):
    text["attention_k_eq_v"] = False
    assert layout.settings_left_out(text) == {}


@pytest.mark.parametrize("given", [None, 0, 64])
def test_a_unified_model_has_only_the_per_layer_inputs_it_names(given):
    text = {"model_type": "gemma4_unified_text"}
    if given is not None:
        text["hidden_size_per_layer_input"] = given
    assert layout.settings_left_out(text) == {"hidden_size_per_layer_input": given or 0}


@pytest.mark.parametrize("start", ["", "language_model."])
def test_a_head_is_found_beside_its_table(start):
    table = f"{start}model.embed_tokens"
    weights = {f"{start}lm_head.{leaf}": mx.ones(3) for leaf in ("weight", "scales")}
    names = layout.head_and_table({**weights, f"{table}.weight": mx.ones(3), "my_lm_head.x": None})
    assert names == {f"{start}lm_head.{leaf}": f"{table}.{leaf}" for leaf in ("weight", "scales")}


def test_a_copy_is_equal_in_every_tensor():
    names = {"lm_head.weight": "model.embed_tokens.weight"}
    table = mx.arange(6).reshape(2, 3)
    assert layout.is_copy({"lm_head.weight": table, "model.embed_tokens.weight": table}, names)
    for other in (table + 1, table[:1], None):
        weights = {"lm_head.weight": table, "model.embed_tokens.weight": other}
        if other is None:
            del weights["model.embed_tokens.weight"]
        assert not layout.is_copy(weights, names)
