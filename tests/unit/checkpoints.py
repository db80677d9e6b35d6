"""Model folders for the doctor, whole, damaged and huge."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import chat, tokenizer

# as Google's of July 2026 also in how it writes a null
TEMPLATE = chat.TEMPLATE.replace("{{ value }}", "{{ 'null' if value is none else value }}")
_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "U32": 4, "U8": 1}


def save(shape: str, folder: Path, **how: Any) -> Path:
    """A tiny checkpoint with tokenizer and template, in which nothing is to be mended."""
    tiny.save(shape, folder, **how)
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "processor_config.json").write_text('{"processor_class": "Gemma4Processor"}')
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    """Set keys of a JSON file; None leaves null."""
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | values))


def write_weights(file: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> int:
    """A safetensors file with a true header and a hole for weights; returns its size."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = _BYTES[dtype]
        for length in shape:
            size *= length
        offsets = [end, end + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        end += size
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + end)
    return 8 + len(text) + end


def huge(folder: Path) -> int:
    """The 31B in bfloat16, all of it holes, in two files; returns their size."""
    config = tiny.config("dense")
    kinds = [("sliding", "full")[i % 6 == 5] + "_attention" for i in range(60)]
    sizes = {
        **{"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60},
        **{"num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4},
        **{"head_dim": 256, "global_head_dim": 512, "vocab_size": 262144, "sliding_window": 1024},
        "layer_types": kinds,
    }
    config["text_config"] |= sizes
    config |= {"vocab_size": 262144, "vision_config": None}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {
        "model.language_model.embed_tokens.weight": ("BF16", (262144, 5376)),
        "model.language_model.norm.weight": ("BF16", (5376,)),
    }
    for i, kind in enumerate(kinds):
        wide, heads = (512, 4) if kind.startswith("full") else (256, 16)
        layer = {
            **{"self_attn.q_proj.weight": (32 * wide, 5376), "self_attn.q_norm.weight": (wide,)},
            **{"self_attn.k_proj.weight": (heads * wide, 5376), "self_attn.k_norm.weight": (wide,)},
            "self_attn.o_proj.weight": (5376, 32 * wide),
            "mlp.gate_proj.weight": (21504, 5376),
            "mlp.up_proj.weight": (21504, 5376),
            "mlp.down_proj.weight": (5376, 21504),
            "input_layernorm.weight": (5376,),
            "post_attention_layernorm.weight": (5376,),
            "pre_feedforward_layernorm.weight": (5376,),
            "post_feedforward_layernorm.weight": (5376,),
            "layer_scalar": (1,),
        }
        if kind.startswith("sliding"):
            layer["self_attn.v_proj.weight"] = (heads * wide, 5376)
        for name, shape in layer.items():
            tensors[f"model.language_model.layers.{i}.{name}"] = ("BF16", shape)
    names = list(tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    size, placed = 0, {}
    for number, half in enumerate(halves, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        size += write_weights(folder / file, {name: tensors[name] for name in half})
        placed |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return size
