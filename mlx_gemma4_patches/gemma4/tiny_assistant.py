"""Tiny random assistants, the drafters that Google publishes for Gemma 4, one for each tiny model.

An assistant reads the last hidden state of its model and, with queries of its own, the keys and
values of that model's last full and last sliding layer. The layout is that of transformers 5.24
(``Gemma4AssistantForCausalLM``; transformers 5.23 raises ValueError when it makes one): four layers
without k and v, ``pre_projection`` (hidden, 2 * backbone), ``post_projection`` (backbone, hidden),
and, for E2B and E4B, a head that scores only the tokens of the best clusters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from . import tiny

TYPES = ("gemma4_assistant", "gemma4_unified_assistant")

_HIDDEN, _INNER, _LAYERS, _CENTROIDS = 64, 128, 4, 16


def config(shape: str) -> dict[str, Any]:
    """``config.json`` of the assistant of one shape of ``tiny.SHAPES``. A fresh dict each time."""
    backbone = tiny.config(shape)["text_config"]
    has_centroids = shape == "e2b"
    text = {
        **backbone,
        "enable_moe_block": False,
        "final_logit_softcapping": None,
        "hidden_size": _HIDDEN,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": _INNER,
        "layer_types": ["sliding_attention"] * (_LAYERS - 1) + ["full_attention"],
        "moe_intermediate_size": None,
        "num_experts": None,
        "num_hidden_layers": _LAYERS,
        "num_kv_shared_layers": _LAYERS,
        "top_k_experts": None,
        "use_bidirectional_attention": None,
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 0,
    }
    made = {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": backbone["hidden_size"],
        "centroid_intermediate_top_k": 4,
        "dtype": "float32",
        "model_type": TYPES[0],
        "num_centroids": _CENTROIDS,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": has_centroids,
    }
    return json.loads(json.dumps(made))


def weights(shape: str) -> dict[str, mx.array]:
    """Tensors of one shape's assistant, float32, named as in a Hugging Face checkpoint."""
    made = {name: tiny.tensor(f"assistant {name}", dims) for name, dims in _sizes(shape).items()}
    if shape == "e2b":
        order = np.argsort(tiny.unit("assistant token_ordering", (tiny.VOCABULARY,)), kind="stable")
        made["masked_embedding.token_ordering"] = order.astype(np.int64)
    return {name: mx.array(value) for name, value in made.items()}


def save(shape: str, folder: str | Path) -> Path:
    """Write config.json and model.safetensors, no tokenizer; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    mx.save_safetensors(str(folder / "model.safetensors"), weights(shape), {"format": "pt"})
    return folder


def _sizes(shape: str) -> dict[str, tuple[int, ...]]:
    made = config(shape)
    text, backbone = made["text_config"], made["backbone_hidden_size"]
    sizes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (text["vocab_size"], _HIDDEN),
        "model.norm.weight": (_HIDDEN,),
        "pre_projection.weight": (_HIDDEN, 2 * backbone),
        "post_projection.weight": (backbone, _HIDDEN),
    }
    if made["use_ordered_embeddings"]:
        sizes["masked_embedding.centroids.weight"] = (_CENTROIDS, _HIDDEN)
    for i, kind in enumerate(text["layer_types"]):
        head_dim = text["global_head_dim" if kind == "full_attention" else "head_dim"]
        queries = text["num_attention_heads"] * head_dim
        layer = {
            "input_layernorm.weight": (_HIDDEN,),
            "post_attention_layernorm.weight": (_HIDDEN,),
            "pre_feedforward_layernorm.weight": (_HIDDEN,),
            "post_feedforward_layernorm.weight": (_HIDDEN,),
            "self_attn.q_proj.weight": (queries, _HIDDEN),
            "self_attn.q_norm.weight": (head_dim,),
            "self_attn.o_proj.weight": (_HIDDEN, queries),
            "mlp.gate_proj.weight": (_INNER, _HIDDEN),
            "mlp.up_proj.weight": (_INNER, _HIDDEN),
            "mlp.down_proj.weight": (_HIDDEN, _INNER),
            "layer_scalar": (1,),
        }
        sizes |= {f"model.layers.{i}.{name}": dims for name, dims in layer.items()}
    return sizes
