"""The sizes of the text models that Google published, in the terms of its config.json.

Sources: the config.json of google/gemma-4-E2B-it, -E4B-it, -12B-it, -26B-A4B-it and -31B-it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PATTERN = {"e2b": 5}  # every how manieth layer attends to all tokens; 6 in the others
_LARGE = {
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "sliding_window": 1024,
    "use_double_wide_mlp": False,
}
_SIZES: dict[str, dict[str, Any]] = {
    "e2b": {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_attention_heads": 8,
        "num_hidden_layers": 35,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
    },
    "e4b": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_attention_heads": 8,
        "num_hidden_layers": 42,
        "num_key_value_heads": 2,
        "num_kv_shared_layers": 18,
        "use_double_wide_mlp": False,
    },
    "12b": {
        **_LARGE,
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_attention_heads": 16,
        "num_global_key_value_heads": 1,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
    },
    "26b-a4b": {
        **_LARGE,
        "enable_moe_block": True,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_attention_heads": 16,
        "num_experts": 128,
        "num_global_key_value_heads": 2,
        "num_hidden_layers": 30,
        "num_key_value_heads": 8,
        "top_k_experts": 8,
    },
    "31b": {
        **_LARGE,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_global_key_value_heads": 4,
        "num_hidden_layers": 60,
        "num_key_value_heads": 16,
    },
}
NAMES = tuple(_SIZES)


def text_config(name: str) -> dict[str, Any]:
    """The settings of one size's text model. A fresh dict each time."""
    size = _SIZES[name]
    every = _PATTERN.get(name, 6)
    kinds = [
        "sliding_attention" if (i + 1) % every else "full_attention"
        for i in range(size["num_hidden_layers"])
    ]
    return {
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_size_per_layer_input": 256,
        "layer_types": kinds,
        "model_type": "gemma4_text",
        "sliding_window": 512,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
        **size,
    }


def name_of(text: Mapping[str, Any]) -> str | None:
    """The published size that ``text``, the settings of a text model, is of."""
    keys = ("hidden_size", "num_hidden_layers")
    return next((n for n, s in _SIZES.items() if all(s[k] == text.get(k) for k in keys)), None)
