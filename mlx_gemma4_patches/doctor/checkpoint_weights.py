"""What the weights of a checkpoint are: shape, quantization, dtypes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..gemma4 import sizes
from ..gemma4.config import text_config
from ..gemma4.layout import settings_left_out
from ..gemma4.shared_kv import without
from ..gemma4.split_table import NAME
from . import checkpoint_memory
from .checkpoint_files import Folder, Tensor, is_size

_WITH_TABLE = ("gemma4", "gemma4_text")  # model types that may have per-layer inputs
_MOST_LAYERS = 1000
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
_QUANTIZED = re.compile(r"\.(scales|biases)$")

# what a tensor belongs to, by the first pattern that its name has
_KINDS = {
    "per-layer table": rf"\b{NAME}\.",
    "embedding table": r"\bembed_tokens\.",
    "output head": r"\blm_head\.",
    "sound": r"\b(audio_tower|embed_audio)\.",
    "vision": r"\b(vision_tower|embed_vision|vision_embedder|multi_modal_projector)\.",
    "router": r"\brouter\.",
    "experts": r"\bexperts\.",
    "attention": r"\bself_attn\.",
    "MLP": r"\bmlp\.",
}


def look(folder: Folder, context: int, device: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the folder's config and headers; what is wrong goes to its remarks.

    Args:
        context: tokens of the conversation whose KV cache is counted.
        device: ``mx.device_info()``, or an empty mapping.

    Returns:
        ``shape`` (a name), ``layout``, ``parameters`` (by kind: tensors, bytes, stored as) and
        ``memory`` (bytes). Empty where the config is of no Gemma 4 that can be judged.
    """
    text = text_config(folder.config)
    if not folder.config or not _is_plausible(folder, text):
        return {}
    shape = _shape(folder, text)
    kinds = {kind: list(tensors) for kind, tensors in _by_kind(folder.tensors)}
    _weights_present(folder, text, kinds)
    stored = {kind: _stored_as(tensors) for kind, tensors in kinds.items()}
    _quantization(folder, stored)
    _dtypes(folder)
    return {
        "shape": shape,
        "layout": "of transformers" if settings_left_out(text) else "of Google",
        "weights": {
            kind: {
                "tensors": len(tensors),
                "bytes": sum(tensor.bytes for _, tensor in tensors),
                "stored_as": stored[kind],
            }
            for kind, tensors in kinds.items()
        },
        "memory": checkpoint_memory.look(folder, text, context, device),
    }


def _is_plausible(folder: Folder, text: Mapping[str, Any]) -> bool:
    wrong = [name for name in _SIZES if not is_size(text.get(name))]
    layers: Any = text.get("num_hidden_layers")
    if wrong or layers > _MOST_LAYERS:
        named = wrong or ["num_hidden_layers"]
        values = ", ".join(f"{name} is {text.get(name)!r:.40}" for name in named)
        means = "Of such sizes nothing can be loaded."
        folder.problem(
            "config", f"config.json: {values}", means, "Take the original's config.json."
        )
        return False
    kinds = text.get("layer_types")
    if kinds is not None and (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or not all(kind in ("sliding_attention", "full_attention") for kind in kinds)
    ):
        found = f"config.json: layer_types does not name a kind for each of {layers} layers"
        folder.problem("config", found, "Windows and caches go to the wrong layers.")
        return False
    own = text.get("per_layer_config", {})
    if not isinstance(own, dict) or not all(
        key.isdecimal() and isinstance(sizes, dict) for key, sizes in own.items()
    ):
        folder.problem("config", "config.json: per_layer_config gives no sizes by layer")
        return False
    shared = text.get("num_kv_shared_layers", 0)
    if shared is not None and not (type(shared) is int and 0 <= shared <= layers):
        folder.problem("config", f"config.json: num_kv_shared_layers is {shared!r:.40}")
        return False
    return True


def _shape(folder: Folder, text: Mapping[str, Any]) -> str:
    model_type = folder.config.get("model_type")
    if isinstance(model_type, str) and model_type.endswith("assistant"):
        means = "It proposes tokens for the model it was made for, and cannot answer by itself."
        do = "Load it as the draft model of its target (mlx-vlm 0.7 and newer)."
        folder.fact("shape", f"an assistant ({model_type})", means, do)
        return "assistant"
    known = sizes.name_of(text)
    own = f"{text['num_hidden_layers']} layers of width {text['hidden_size']}"
    return known.upper() if known else f"of no published size: {own}"


def _by_kind(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, list[tuple[str, Tensor]]]]:
    found: dict[str, list[tuple[str, Tensor]]] = {kind: [] for kind in (*_KINDS, "the rest")}
    for name, tensor in tensors.items():
        kind = next((k for k, pattern in _KINDS.items() if re.search(pattern, name)), "the rest")
        found[kind].append((name, tensor))
    return ((kind, members) for kind, members in found.items() if members)


def _weights_present(folder: Folder, text: Mapping[str, Any], kinds: Mapping[str, list]) -> None:
    if not folder.tensors:
        return
    config = folder.config
    if "embedding table" not in kinds:
        means = "The model does not load."
        folder.problem("weights", "the embedding table is not among the weights", means)
    wants = text.get("hidden_size_per_layer_input") and config.get("model_type") in _WITH_TABLE
    if wants and "per-layer table" not in kinds:
        means = "E2B and E4B do not load without it."
        folder.problem("weights", f"{NAME} is not among the weights", means)
    for key, kind, what in (
        ("vision_config", "vision", "image"),
        ("audio_config", "sound", "sound"),
    ):
        if config.get(key) and kind not in kinds:
            folder.warn(
                "weights",
                f"config.json has a {key}, and no weights of it are here",
                f"mlx-vlm looks for them; {what} input cannot work.",
                "For text alone, set the key to null; otherwise convert with mlx-vlm.",
            )
    first = text["num_hidden_layers"] - (text.get("num_kv_shared_layers") or 0)
    unused = folder.tensors.keys() - without(folder.tensors, first).keys()
    if unused:
        folder.fact(
            "weights",
            f"{len(unused)} tensors of k_proj, v_proj and k_norm that KV-shared layers ignore",
            "As in Google's originals. Some releases refuse them without the patches.",
        )
    if "output head" in kinds and folder.config.get("tie_word_embeddings", True):
        folder.fact(
            "weights",
            "lm_head is stored, though the config ties it to the embedding table",
            "Stock hosts refuse it. The patches drop a copy, and use one that differs.",
        )
    _clipping(folder)
    _sound_layout(folder)


def _clipping(folder: Folder) -> None:
    for key, tower in (("vision_config", "vision_tower."), ("audio_config", "audio_tower.")):
        config = folder.config.get(key)
        own = [name for name in folder.tensors if tower in name]
        if not own or not isinstance(config, dict):
            continue
        clips = any(name.endswith(("input_max", "output_max")) for name in own)
        asked = config.get("use_clipped_linears", key == "audio_config")
        if asked and not clips:
            folder.problem(
                "weights",
                f"{key} says use_clipped_linears, and no bounds (input_max ...) are stored",
                "The tower does not load, or computes without the bounds it was trained with.",
                "Convert again from the original.",
            )
        elif clips and not asked:
            folder.warn(
                "weights",
                f"bounds (input_max ...) are stored for {tower[:-1]}, and {key} does not say "
                "use_clipped_linears",
                "The tower computes without them.",
                f"Set use_clipped_linears in {key} as the original has it.",
            )


def _sound_layout(folder: Folder) -> None:
    """The layout of the first convolution: (out, in, H, W) in PyTorch, (out, H, W, in) in MLX."""
    for name, tensor in folder.tensors.items():
        if name.endswith("subsample_conv_projection.layer0.conv.weight") and tensor.shape:
            layout = "MLX's" if tensor.shape[-1] == 1 else "PyTorch's"
            means = "mlx-vlm 0.6.4 takes them for the other kind and does not load them."
            means = means if layout == "MLX's" else ""
            folder.fact("weights", f"sound convolutions in {layout} layout", means)


def _stored_as(tensors: list[tuple[str, Tensor]]) -> str:
    """The dtypes of matrices, quantized ones as bits, by the bytes they take."""
    own = dict(tensors)
    taken: Counter[str] = Counter()
    for name, tensor in tensors:
        if _QUANTIZED.search(name) or len(tensor.shape) < 2:
            continue
        scales = own.get(f"{name.removesuffix('.weight')}.scales")
        if tensor.dtype == "U32" and scales is not None and scales.shape and scales.shape[-1]:
            taken[_packed(tensor, scales)] += tensor.bytes
        else:
            taken[_WORDS.get(tensor.dtype, tensor.dtype)] += tensor.bytes
    return ", ".join(what for what, _ in taken.most_common(3)) or "small tensors only"


_WORDS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def _packed(weight: Tensor, scales: Tensor) -> str:
    """Bits for a value: a scale is for 64 values, or for 32 or 16 of the floating-point modes."""
    bits = 32 * weight.shape[-1] / scales.shape[-1]  # of a whole group
    groups = {"U8": (32, 16)}.get(scales.dtype, (64, 128, 32))
    for group in groups:
        if bits / group in (2, 3, 4, 5, 6, 8):
            return f"{int(bits / group)}-bit, groups of {group}"
    return "packed"


def _bits(stored: str) -> int:
    found = re.match(r"(\d)-bit", stored)
    return int(found[1]) if found else 16


def _quantization(folder: Folder, stored: Mapping[str, str]) -> None:
    if _bits(stored.get("per-layer table", "")) < 8:
        folder.warn(
            "quantization",
            f"the per-layer table is stored as {stored['per-layer table']}",
            "It feeds every layer; conversions with fewer than 8 bits were seen to answer nonsense "
            "(raullenchai/Rapid-MLX#1114).",
            "If answers are bad, convert with 8 bits or bfloat16 for embed_tokens_per_layer.",
        )
    if _bits(stored.get("router", "")) < 8:
        folder.warn(
            "quantization",
            f"the router of the experts is stored as {stored['router']}",
            "It chooses the experts of each token. Both hosts keep it at 8 bits when they convert.",
            "Convert again with a current mlx-lm or mlx-vlm.",
        )
    if any("packed" in what or "-bit" in what for what in stored.values()) and not (
        folder.config.get("quantization") or folder.config.get("quantization_config")
    ):
        folder.problem(
            "quantization",
            "the weights are packed, and config.json says nothing of a quantization",
            "Hosts take the packed numbers for weights and refuse their shapes.",
            "Take the config.json that belongs to these weights.",
        )


def _dtypes(folder: Folder) -> None:
    taken: Counter[str] = Counter()
    for tensor in folder.tensors.values():
        taken[tensor.dtype] += tensor.bytes
    total = sum(taken.values()) or 1
    if taken["F16"] > total / 2:
        folder.warn(
            "dtype",
            "most weights are float16",
            "Gemma 4 was trained in bfloat16, which reaches much further: activations can overflow "
            "to infinity, and answers end in nonsense.",
            "Convert again with --dtype bfloat16.",
        )
    if taken["F32"] > total / 2 and total > 1 << 30:
        means = "Twice the memory and time of bfloat16, which the originals are in."
        do = "Convert again with --dtype bfloat16."
        folder.warn("dtype", "most weights are float32", means, do)
