"""Tiny models of other families, built from the hosts' own classes, that share code with Gemma 4.

gemma3n has sliding windows and per-layer inputs and reads the cache's offset before the update;
gemma3 and gpt_oss have sliding windows; llama and qwen3 have plain caches. Vocabulary 512, float32,
seeded weights.
"""

from __future__ import annotations

import importlib
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

NAMES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 16, "sliding_window_pattern": 2},
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "llama": {},
    "olmo2": {},
    "qwen3": {"tie_word_embeddings": True},
}


def gemma3n() -> Any:
    """mlx-lm's ``gemma3n.Model``, window 16."""
    from mlx_lm.models import gemma3n

    return _filled(gemma3n.Model(gemma3n.ModelArgs("gemma3n", dict(_GEMMA3N))))


def llama() -> Any:
    """mlx-lm's ``llama.Model``."""
    return of_mlx_lm("llama")


def of_mlx_lm(name: str) -> Any:
    """mlx-lm's model of one of ``NAMES``, window 16 where it has one."""
    settings = {**_COMMON, "model_type": name, "num_hidden_layers": 2, "intermediate_size": 128}
    host = importlib.import_module(f"mlx_lm.models.{name}")
    return _filled(host.Model(host.ModelArgs.from_dict({**settings, **NAMES[name]})))


def gemma3n_vlm() -> Any:
    """mlx-vlm's ``gemma3n.LanguageModel``, window 16; its output has ``logits``."""
    from mlx_vlm.models import gemma3n

    return _filled(gemma3n.LanguageModel(gemma3n.TextConfig.from_dict(_GEMMA3N)))


_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def gemma3_vlm() -> tuple[Any, list[int]]:
    """mlx-vlm's ``gemma3.Model``, window 16, and the ids of an image of 32 x 32 pixels."""
    from mlx_vlm.models import gemma3

    text = {**_COMMON, "model_type": "gemma3_text", "num_hidden_layers": 4}
    text |= {"intermediate_size": 128, "mm_tokens_per_image": 4, "query_pre_attn_scalar": 32}
    config = gemma3.ModelConfig(
        gemma3.TextConfig.from_dict({**text, "sliding_window": 16, "sliding_window_pattern": 2}),
        gemma3.VisionConfig.from_dict({**_VISION, "model_type": "siglip_vision_model"}),
        model_type="gemma3",
        image_token_index=502,
        hidden_size=64,
    )
    return _filled(gemma3.Model(config)), [502] * 4


def llava_vlm() -> tuple[Any, list[int]]:
    """mlx-vlm's ``llava.Model``, and the ids of an image of 32 x 32 pixels."""
    from mlx_vlm.models import llava

    text = {**_COMMON, "model_type": "llama", "num_hidden_layers": 2, "intermediate_size": 128}
    config = llava.ModelConfig(
        llava.TextConfig.from_dict({**text, "rope_theta": 1e4}),
        llava.VisionConfig.from_dict({**_VISION, "model_type": "clip_vision_model"}),
        model_type="llava",
        image_token_index=502,
    )
    return _filled(llava.Model(config)), [502] * 16


def _filled(model: nn.Module) -> nn.Module:
    """The model with weights large enough for attention to matter, the same each time."""
    parameters: Any = tree_flatten(model.parameters())
    shapes = [(name, old.shape) for name, old in parameters]
    keys = mx.random.split(mx.random.key(0), len(shapes))
    for (name, shape), key in zip(shapes, keys, strict=True):
        noise = mx.random.normal(shape, key=key)
        new = 1 + 0.1 * noise if len(shape) < 2 else noise * shape[-1] ** -0.5
        model.load_weights([(name, new)], strict=False)
    return model.eval()
