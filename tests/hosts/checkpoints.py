"""Tiny checkpoints in the layouts that are found in the wild."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_gemma4_patches.gemma4.layout import host_names

Tensors = dict[str, mx.array]

GROUP = 64


def change(
    folder: Path,
    config: Callable[[dict[str, Any]], Any] | None = None,
    tensors: Callable[[Tensors], Tensors] | None = None,
    format: str = "pt",
) -> Path:
    """Rewrite the model in ``folder``; ``config`` and ``tensors`` return what replaces the old.

    ``config`` may also change its argument and return None. ``format`` is what the file says of its
    new tensors: ``mlx`` in a host's conversion, which mlx-vlm up to 0.6.3 takes as it stands.
    """
    if config is not None:
        file = folder / "config.json"
        old = json.loads(file.read_text())
        new = config(old)
        file.write_text(json.dumps(old if new is None else new))
    if tensors is not None:
        file = folder / "model.safetensors"
        changed = tensors(dict(mx.load(str(file))))
        mx.eval(changed)  # before the file they are read from is gone
        mx.save_safetensors(str(file), changed, metadata={"format": format})
    return folder


def text_only(config: dict[str, Any], model_type: str = "gemma4_text") -> dict[str, Any]:
    """config.json of the text model alone."""
    return {**config["text_config"], "model_type": model_type}


def text_tensors(tensors: Tensors) -> Tensors:
    """The text model's tensors, named as in a checkpoint of it alone."""
    start = "model.language_model."
    return {f"model.{k.removeprefix(start)}": v for k, v in tensors.items() if k.startswith(start)}


def quantized(tensors: Tensors, bits: int) -> Tensors:
    """Tensors named as the hosts write them, the text model's matrices quantized."""
    made = {}
    for name, value in host_names(tensors).items():
        if name.startswith("language_model.") and name.endswith(".weight") and value.ndim == 2:
            weight, scales, biases = mx.quantize(value, GROUP, bits)
            stem = name.removesuffix("weight")
            made |= {name: weight, f"{stem}scales": scales, f"{stem}biases": biases}
        else:
            made[name] = value
    return made


def quantization(config: dict[str, Any], bits: int) -> dict[str, Any]:
    """config.json of ``quantized`` tensors."""
    return {**config, "quantization": {"group_size": GROUP, "bits": bits}}
