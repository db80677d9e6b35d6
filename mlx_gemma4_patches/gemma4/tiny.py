"""Tiny random Gemma 4 checkpoints in three shapes, the same bits on every platform.

Probes, the doctor and the tests run on these. Each shape carries what one family of the real
models has:

- ``e2b``: per-layer embeddings, KV-shared last layers with a double-wide MLP, one KV head;
- ``moe``: experts, keys used as values in full attention, bidirectional attention in images;
- ``dense``: as ``moe`` without experts.

The window is 16 tokens, so a short prompt gets past it. The hidden size is 192: quantization
groups of 64 divide it (both hosts quantize the router so), and its square root is no power of two,
or a wrong embedding scale would stay unseen.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

SHAPES = ("e2b", "moe", "dense")

VOCABULARY = 512
MEDIA_IDS = range(500, 507)

_TEXT = {
    "model_type": "gemma4_text",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attention_k_eq_v": False,
    "bos_token_id": 2,
    "enable_moe_block": False,
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 64,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 192,
    "hidden_size_per_layer_input": 0,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "max_position_embeddings": 4096,
    "moe_intermediate_size": None,
    "num_attention_heads": 4,
    "num_experts": None,
    "num_global_key_value_heads": None,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 0,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {
            "partial_rotary_factor": 0.25,
            "rope_theta": 1000000.0,
            "rope_type": "proportional",
        },
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    "sliding_window": 16,
    "tie_word_embeddings": True,
    "top_k_experts": None,
    "use_bidirectional_attention": None,
    "use_cache": True,
    "use_double_wide_mlp": False,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
}

_LARGE = {
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
    "use_bidirectional_attention": "vision",
}

_SHAPE = {
    "e2b": {
        "hidden_size_per_layer_input": 64,
        "layer_types": _TEXT["layer_types"] + _TEXT["layer_types"][:3],
        "num_hidden_layers": 9,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": True,
    },
    "moe": {
        **_LARGE,
        "enable_moe_block": True,
        "moe_intermediate_size": 64,
        "num_experts": 8,
        "top_k_experts": 2,
    },
    "dense": _LARGE,
}

_VISION = {
    "model_type": "gemma4_vision",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "default_output_length": 280,
    "global_head_dim": 32,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "max_position_embeddings": 4096,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "position_embedding_size": 64,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    "standardize": False,
    "use_clipped_linears": False,
}


_GAIN = {
    # Small embeddings: greedy text would repeat its last token, as the output table is the same.
    "embed_tokens.weight": 0.5,
    # Small queries: attention as sharp as the full norm gives blows rounding up to 5e-4 in logits.
    "q_norm.weight": 0.5,
    # A large last norm: logits get large enough for the soft cap to show.
    "language_model.norm.weight": 6.0,
}


def config(shape: str) -> dict[str, Any]:
    """``config.json`` of one shape, laid out as Google ships it. A fresh dict each time."""
    made = {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "audio_config": None,
        "audio_token_id": 505,
        "boa_token_id": 504,
        "boi_token_id": 500,
        "dtype": "float32",
        "eoa_token_index": 506,
        "eoi_token_id": 501,
        "eos_token_id": [1, 106],
        "image_token_id": 502,
        "initializer_range": 0.02,
        "model_type": "gemma4",
        "text_config": {**_TEXT, **_SHAPE[shape]},
        "tie_word_embeddings": True,
        "video_token_id": 503,
        "vision_config": _VISION,
        "vision_soft_tokens_per_image": 280,
        # Without it mlx-lm assumes 262144.
        "vocab_size": VOCABULARY,
    }
    return json.loads(json.dumps(made))


def weights(shape: str, *, shared_kv: bool = False) -> dict[str, mx.array]:
    """Tensors of one shape, float32, named as in a Hugging Face checkpoint.

    Linear weights are (out, in), uniform with variance 1 / in; norms and scales are uniform in
    1 +- 0.2; a few have a gain (see there); ``layer_scalar`` is 0.9. A value depends on the
    tensor's name and the element's index only. The rows of the media ids are small, so that no
    greedy run emits one: transformers embeds a generated placeholder as padding, which no host
    has to follow.

    ``shared_kv`` adds k_proj, v_proj and k_norm of the KV-shared layers. Google's checkpoints
    hold them, transformers neither reads nor saves them.
    """
    made = {name: tensor(name, dims) for name, dims in _dimensions(shape, shared_kv).items()}
    made["model.language_model.embed_tokens.weight"][MEDIA_IDS.start : MEDIA_IDS.stop] *= 0.125
    return {name: mx.array(value) for name, value in made.items()}


def save(
    shape: str, folder: str | Path, *, dtype: mx.Dtype = mx.float32, shared_kv: bool = False
) -> Path:
    """Write config.json, generation_config.json and model.safetensors; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**config(shape), "dtype": str(dtype).removeprefix("mlx.core.")}
    generation = {
        "bos_token_id": 2,
        "do_sample": True,
        "eos_token_id": [1, 106, 50],
        "pad_token_id": 0,
        "temperature": 1.0,
        "top_k": 64,
        "top_p": 0.95,
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    tensors = {k: v.astype(dtype) for k, v in weights(shape, shared_kv=shared_kv).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    return folder


def prompt(n: int, seed: int = 0) -> list[int]:
    """``n`` token ids in 110..489: no special token, no media id."""
    return (110 + _bits(f"prompt {seed}", n) % np.uint64(380)).tolist()


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pixels in [0, 1) that give ``height`` x ``width`` soft tokens.

    Returns float32 (3, 48 * height, 48 * width): a soft token is 3 x 3 patches of 16 pixels.
    """
    return unit(f"image {seed}", (3, 48 * height, 48 * width)).astype(np.float32)


def _bits(name: str, n: int) -> np.ndarray:
    """(n,) uint64: splitmix64 of a counter that starts where the name says."""
    z = np.arange(1, n + 1, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(name: str, dims: tuple[int, ...]) -> np.ndarray:
    """Float64 of shape ``dims``, uniform in [0, 1): 24 bits each, exact in float32 too."""
    return (_bits(name, int(np.prod(dims))) >> np.uint64(40)).reshape(dims) / 2.0**24


def tensor(name: str, dims: tuple[int, ...]) -> np.ndarray:
    """Float32 of shape ``dims``, as ``weights`` says."""
    if name.endswith("layer_scalar"):
        return np.full(dims, 0.9, np.float32)
    noise = 2.0 * unit(name, dims) - 1.0
    value = 1.0 + 0.2 * noise if len(dims) == 1 else noise * (3.0 / dims[-1]) ** 0.5
    gain = next((gain for end, gain in _GAIN.items() if name.endswith(end)), 1.0)
    return (value * gain).astype(np.float32)


def _dimensions(shape: str, shared_kv: bool) -> dict[str, tuple[int, ...]]:
    settings = config(shape)
    text, vision = settings["text_config"], settings["vision_config"]
    hidden = text["hidden_size"]
    made = {
        "embed_vision.embedding_projection.weight": (hidden, vision["hidden_size"]),
        "language_model.embed_tokens.weight": (text["vocab_size"], hidden),
        "language_model.norm.weight": (hidden,),
        "vision_tower.patch_embedder.input_proj.weight": (
            vision["hidden_size"],
            3 * vision["patch_size"] ** 2,
        ),
        "vision_tower.patch_embedder.position_embedding_table": (
            2,
            vision["position_embedding_size"],
            vision["hidden_size"],
        ),
    }
    if each := text["hidden_size_per_layer_input"]:
        every = each * text["num_hidden_layers"]
        made |= {
            "language_model.embed_tokens_per_layer.weight": (
                text["vocab_size_per_layer_input"],
                every,
            ),
            "language_model.per_layer_model_projection.weight": (every, hidden),
            "language_model.per_layer_projection_norm.weight": (each,),
        }
    for i in range(text["num_hidden_layers"]):
        for name, dims in _text_layer(text, i, shared_kv).items():
            made[f"language_model.layers.{i}.{name}"] = dims
    for i in range(vision["num_hidden_layers"]):
        layer = _layer(
            vision, vision["head_dim"], vision["num_key_value_heads"], vision["intermediate_size"]
        )
        for name, dims in layer.items():
            # The vision tower wraps its linear layers.
            name = name.replace("_proj.weight", "_proj.linear.weight")
            made[f"vision_tower.encoder.layers.{i}.{name}"] = dims
    return {f"model.{name}": dims for name, dims in made.items()}


def _layer(
    c: Mapping[str, Any], head_dim: int, kv_heads: int, intermediate: int
) -> dict[str, tuple[int, ...]]:
    """Dimensions of what every layer has, in the text model and in the vision tower."""
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    return {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "pre_feedforward_layernorm.weight": (hidden,),
        "post_feedforward_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (heads * head_dim, hidden),
        "self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.o_proj.weight": (hidden, heads * head_dim),
        "self_attn.q_norm.weight": (head_dim,),
        "self_attn.k_norm.weight": (head_dim,),
        "mlp.gate_proj.weight": (intermediate, hidden),
        "mlp.up_proj.weight": (intermediate, hidden),
        "mlp.down_proj.weight": (hidden, intermediate),
    }


def _text_layer(c: Mapping[str, Any], i: int, shared_kv: bool) -> dict[str, tuple[int, ...]]:
    hidden = c["hidden_size"]
    full = c["layer_types"][i] == "full_attention"
    shared = i >= c["num_hidden_layers"] - c["num_kv_shared_layers"]
    k_eq_v = full and c["attention_k_eq_v"]
    wide = 2 if shared and c["use_double_wide_mlp"] else 1
    made = _layer(
        c,
        c["global_head_dim"] if full else c["head_dim"],
        c["num_global_key_value_heads"] if k_eq_v else c["num_key_value_heads"],
        wide * c["intermediate_size"],
    )
    if shared and not shared_kv:
        for name in ("k_proj", "v_proj", "k_norm"):
            del made[f"self_attn.{name}.weight"]
    if k_eq_v:
        del made["self_attn.v_proj.weight"]
    made["layer_scalar"] = (1,)
    if each := c["hidden_size_per_layer_input"]:
        made |= {
            "per_layer_input_gate.weight": (each, hidden),
            "per_layer_projection.weight": (hidden, each),
            "post_per_layer_input_norm.weight": (hidden,),
        }
    if c["enable_moe_block"]:
        experts, inner = c["num_experts"], c["moe_intermediate_size"]
        made |= {
            "experts.gate_up_proj": (experts, 2 * inner, hidden),
            "experts.down_proj": (experts, hidden, inner),
            "router.proj.weight": (experts, hidden),
            "router.scale": (hidden,),
            "router.per_expert_scale": (experts,),
            "post_feedforward_layernorm_1.weight": (hidden,),
            "pre_feedforward_layernorm_2.weight": (hidden,),
            "post_feedforward_layernorm_2.weight": (hidden,),
        }
    return made
