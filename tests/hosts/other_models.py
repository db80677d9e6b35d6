"""Tiny models of other families, built from the hosts' own classes, that share code with Gemma 4.

gemma3n has sliding windows and per-layer inputs and reads the cache's offset before the update;
llama has plain caches. Vocabulary 512, float32, seeded weights.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

_COMMON = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "rope_theta": 1e6,
}

_GEMMA3N = {
    **_COMMON,
    "model_type": "gemma3n_text",
    "num_hidden_layers": 6,
    "intermediate_size": [128] * 6,
    # sharing would fail for reasons of its own: a batch unpacks two values of a cache's four
    "num_kv_shared_layers": 0,
    "vocab_size_per_layer_input": 512,
    "sliding_window": 16,
    "rope_local_base_freq": 1e4,
    "final_logit_softcapping": 30.0,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "activation_sparsity_pattern": [0.0] * 6,
    "hidden_size_per_layer_input": 16,
    "altup_num_inputs": 2,
    "altup_coef_clip": 120.0,
    "altup_correct_scale": True,
    "altup_active_idx": 0,
    "laurel_rank": 8,
}


def gemma3n() -> Any:
    """mlx-lm's ``gemma3n.Model``, window 16."""
    from mlx_lm.models import gemma3n

    return _filled(gemma3n.Model(gemma3n.ModelArgs("gemma3n", dict(_GEMMA3N))))


def llama() -> Any:
    """mlx-lm's ``llama.Model``."""
    from mlx_lm.models import llama

    settings = {"model_type": "llama", "num_hidden_layers": 2, "intermediate_size": 128}
    return _filled(llama.Model(llama.ModelArgs.from_dict({**_COMMON, **settings})))


def gemma3n_vlm() -> Any:
    """mlx-vlm's ``gemma3n.LanguageModel``, window 16; its output has ``logits``."""
    from mlx_vlm.models import gemma3n

    return _filled(gemma3n.LanguageModel(gemma3n.TextConfig.from_dict(_GEMMA3N)))


def _filled(model: nn.Module) -> nn.Module:
    """The model with weights large enough for attention to matter, the same each time."""
    shapes = [(name, old.shape) for name, old in tree_flatten(model.parameters())]
    keys = mx.random.split(mx.random.key(0), len(shapes))
    for (name, shape), key in zip(shapes, keys, strict=True):
        noise = mx.random.normal(shape, key=key)
        new = 1 + 0.1 * noise if len(shape) < 2 else noise * shape[-1] ** -0.5
        model.load_weights([(name, new)], strict=False)
    return model.eval()
