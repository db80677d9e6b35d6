"""Gemma 4 checkpoints as transformers writes them since 5.15, in the terms of Google's own.

Google's config.json has the sizes of full-attention layers in ``global_head_dim`` and
``num_global_key_value_heads``. transformers writes ``per_layer_config`` in their place, knows no
``vocab_size`` outside of ``text_config``, and no per-layer inputs in a unified model. Source:
huggingface/transformers#47384, configuration_gemma4.py and configuration_gemma4_unified.py (5.23).
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from .config import text_config

_SIZES = ("head_dim", "num_key_value_heads")
_GLOBAL_SIZES = ("global_head_dim", "num_global_key_value_heads")
_HEAD = re.compile(r"^(.*)\blm_head\.(\w+)$")
_TEXT = "language_model."


def settings_left_out(text: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Google's layout that ``text`` says in transformers' way.

    Args:
        text: the settings of the text model, ``text_config`` of config.json or all of it.

    Returns:
        An empty dict for Google's layout, and for layers that it has no words for or that make no
        sense.
    """
    found: dict[str, Any] = {}
    if text.get("model_type") == "gemma4_unified_text":
        found["hidden_size_per_layer_input"] = text.get("hidden_size_per_layer_input", 0)
    said = any(text.get(name) is not None for name in _GLOBAL_SIZES)
    if isinstance(text.get("per_layer_config"), Mapping) and not said:
        with contextlib.suppress(TypeError, ValueError):
            found |= _global_sizes(text)
    return found


def as_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config``, a config.json in Google's layout, as transformers would write it."""
    config = copy.deepcopy(dict(config))
    text = text_config(config)
    if text is not config:
        config.pop("vocab_size", None)
    sizes = {name: text.pop(long) for name, long in zip(_SIZES, _GLOBAL_SIZES, strict=True)}
    if not text["attention_k_eq_v"] or sizes["num_key_value_heads"] is None:
        del sizes["num_key_value_heads"]
    sizes = {name: size for name, size in sizes.items() if size != text[name]}
    layers = [i for i, kind in enumerate(text["layer_types"]) if kind == "full_attention" and sizes]
    digits = len(str(max(layers, default=0)))
    text["per_layer_config"] = {str(i).zfill(digits): dict(sizes) for i in layers}
    return config


def host_names(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """``weights``, named as in a Hugging Face checkpoint, as the hosts' conversions name them."""
    names = {name: name.removeprefix("model.") for name in weights}
    return {
        f"{_TEXT}model.{name.removeprefix(_TEXT)}" if name.startswith(_TEXT) else name: weights[old]
        for old, name in names.items()
    }


def head_and_table(weights: Mapping[str, mx.array]) -> dict[str, str]:
    """Names of the output head's tensors, each with its counterpart's in the embedding table."""
    return {
        name: f"{found[1]}model.embed_tokens.{found[2]}"
        for name in weights
        if (found := _HEAD.match(name))
    }


def is_copy(weights: Mapping[str, mx.array], names: Mapping[str, str]) -> bool:
    """Whether every tensor of ``names`` equals its counterpart.

    If so, transformers ties head and table, and drops a head that stands in a file; if not, it uses
    the head, whatever ``tie_word_embeddings`` says.
    """
    return all(
        table in weights and mx.array_equal(weights[name], weights[table]).item()
        for name, table in names.items()
    )


def _global_sizes(text: Mapping[str, Any]) -> dict[str, Any]:
    base = {name: text.get(name) for name in _SIZES}
    own = {int(i): sizes for i, sizes in text["per_layer_config"].items()}
    layers: dict[str, list[dict[str, Any]]] = {"sliding_attention": [base]}
    for i, kind in enumerate(text.get("layer_types") or ()):
        layers.setdefault(kind, []).append({**base, **own.get(i, {})})
    full = layers.get("full_attention", [base])[0]
    heads_differ = full["num_key_value_heads"] != base["num_key_value_heads"]
    if (
        any(one != many[0] for many in layers.values() for one in many)
        or full.keys() != base.keys()
        or (heads_differ and not text.get("attention_k_eq_v"))
    ):
        return {}
    return {long: full[name] for name, long in zip(_SIZES, _GLOBAL_SIZES, strict=True)}
