"""Ears for a tiny checkpoint: the audio tower that E2B and E4B have, and sounds to hear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from . import tiny

CONFIG: dict[str, Any] = {
    "model_type": "gemma4_audio",
    "attention_chunk_size": 12,
    "attention_context_left": 13,
    "attention_context_right": 0,
    "attention_invalid_logits_value": -1e9,
    "attention_logit_cap": 50.0,
    "conv_kernel_size": 5,
    "gradient_clipping": 1e10,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "output_proj_dims": 80,
    "residual_weight": 0.5,
    "rms_norm_eps": 1e-6,
    "subsampling_conv_channels": [128, 8],
    "use_clipped_linears": True,
}
# finite, so that clipping shows
_BOUNDS = {"input_min": -2.5, "input_max": 2.5, "output_min": -3.0, "output_max": 3.0}
_MEL_BINS = 128  # transformers takes the first convolution's channels for them


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """float32 (samples,) in [-0.5, 0.5): noise, at whatever rate."""
    return (tiny.unit(f"sound {seed}", (samples,)) - 0.5).astype(np.float32)


def weights(hidden_size: int) -> dict[str, mx.array]:
    """Tensors of the tower and of what projects its rows to ``hidden_size``, as tiny.weights."""
    made = {
        f"model.{name}": tiny.tensor(f"model.{name}", dims)
        for name, dims in _dimensions(hidden_size).items()
    }
    for name in [name for name in made if ".linear.weight" in name]:
        for bound, value in _BOUNDS.items():
            made[name.replace("linear.weight", bound)] = np.array(value, np.float32)
    return {name: mx.array(value) for name, value in made.items()}


def add_to(folder: Path) -> Path:
    """Give the checkpoint that ``tiny.save`` wrote ears; returns the folder."""
    file, tensors = folder / "config.json", folder / "model.safetensors"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "audio_config": CONFIG}, indent=2))
    made = {**mx.load(str(tensors)), **weights(settings["text_config"]["hidden_size"])}
    mx.eval(made)  # before the file they are read from is gone
    mx.save_safetensors(str(tensors), made, metadata={"format": "pt"})
    return folder


def _dimensions(hidden_size: int) -> dict[str, tuple[int, ...]]:
    hidden, (first, second) = CONFIG["hidden_size"], CONFIG["subsampling_conv_channels"]
    made: dict[str, tuple[int, ...]] = {
        "embed_audio.embedding_projection.weight": (hidden_size, CONFIG["output_proj_dims"]),
        "audio_tower.output_proj.weight": (CONFIG["output_proj_dims"], hidden),
        "audio_tower.output_proj.bias": (CONFIG["output_proj_dims"],),
    }
    subsampling = {
        "layer0.conv.weight": (first, 1, 3, 3),
        "layer0.norm.weight": (first,),
        "layer1.conv.weight": (second, first, 3, 3),
        "layer1.norm.weight": (second,),
        "input_proj_linear.weight": (hidden, _MEL_BINS // 4 * second),
    }
    made |= {f"audio_tower.subsample_conv_projection.{n}": dims for n, dims in subsampling.items()}
    for i in range(CONFIG["num_hidden_layers"]):
        made |= {f"audio_tower.layers.{i}.{name}": dims for name, dims in _layer(hidden).items()}
    return made


def _layer(hidden: int) -> dict[str, tuple[int, ...]]:
    made: dict[str, tuple[int, ...]] = {
        "self_attn.per_dim_scale": (hidden // CONFIG["num_attention_heads"],),
        "self_attn.relative_k_proj.weight": (hidden, hidden),
        "lconv1d.linear_start.linear.weight": (2 * hidden, hidden),
        "lconv1d.linear_end.linear.weight": (hidden, hidden),
        "lconv1d.depthwise_conv1d.weight": (hidden, 1, CONFIG["conv_kernel_size"]),
    }
    for name in ("q_proj", "k_proj", "v_proj", "post"):
        made[f"self_attn.{name}.linear.weight"] = (hidden, hidden)
    for name in ("feed_forward1", "feed_forward2"):
        made |= {
            f"{name}.ffw_layer_1.linear.weight": (4 * hidden, hidden),
            f"{name}.ffw_layer_2.linear.weight": (hidden, 4 * hidden),
            f"{name}.pre_layer_norm.weight": (hidden,),
            f"{name}.post_layer_norm.weight": (hidden,),
        }
    norms = ("lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn", "norm_post_attn")
    return made | {f"{name}.weight": (hidden,) for name in (*norms, "norm_out")}
