"""What memory a checkpoint takes: its weights, and the KV cache of a conversation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..gemma4.layout import settings_left_out
from ..gemma4.split_table import NAME
from .checkpoint_files import Folder, is_size

_PIECE = 256  # tokens by which a KV cache grows


def look(
    folder: Folder, text: Mapping[str, Any], context: int, device: Mapping[str, Any]
) -> dict[str, int]:
    """Bytes of the weights and of a conversation of ``context`` tokens, see ``_kv_cache``.

    What this device cannot hold goes to the folder's remarks.
    """
    _largest_buffer(folder, device)
    weights = sum(tensor.bytes for tensor in folder.tensors.values())
    memory = {"weights": weights, "context": context, **_kv_cache(text, context)}
    _fits(folder, memory, device)
    return memory


def _largest_buffer(folder: Folder, device: Mapping[str, Any]) -> None:
    limit = device.get("max_buffer_length")
    if not limit:
        return
    name, tensor = max(folder.tensors.items(), key=lambda item: item[1].bytes, default=("", None))
    if tensor is None or tensor.bytes <= limit:
        return
    found = f"{name} takes {gigabytes(tensor.bytes)}, a buffer of this device {gigabytes(limit)}"
    if f"{NAME}." in name:
        folder.warn("memory", found, "Stock hosts fail. With mlx_lm.ple_split it is split.")
    else:
        folder.problem("memory", found, "It cannot be loaded here.", "Take a quantized conversion.")


def _kv_cache(text: Mapping[str, Any], context: int) -> dict[str, int]:
    """Bytes of one conversation's KV cache of ``context`` tokens, in bfloat16.

    ``snapshot`` is what each further place costs at which a prefix cache can go on: the windows.
    """
    text = {**text, **settings_left_out(text)}
    head_dim = _whole(text, "head_dim", 256)
    window = _whole(text, "sliding_window", 512)
    layers = text["num_hidden_layers"] - (text.get("num_kv_shared_layers") or 0)
    heads = text["num_key_value_heads"]
    full_heads = _whole(text, "num_global_key_value_heads", heads)
    full_dim = _whole(text, "global_head_dim", head_dim)
    pattern = ["sliding_attention"] * (4 if text.get("num_kv_shared_layers") == 20 else 5)
    repeated = [*pattern, "full_attention"] * text["num_hidden_layers"]
    kinds = (text.get("layer_types") or repeated)[:layers]
    full_tokens = -(-context // _PIECE) * _PIECE
    a_full_layer = 2 * full_heads * full_dim * full_tokens  # values, of keys and of values
    a_window = 2 * heads * head_dim * min(context, window)
    count = Counter(kinds)
    full, windows = count["full_attention"] * a_full_layer, count["sliding_attention"] * a_window
    return {
        "kv_cache": 2 * (full + windows),
        **{
            f"kv_cache_{bits}_bits": 2 * windows + full * (2 * bits + 1) // 16 for bits in (8, 4)
        },  # a scale and a bias of 16 bits for each 64 values
        "snapshot": 2 * windows,
    }


def _whole(text: Mapping[str, Any], name: str, default: int) -> int:
    value: Any = text.get(name)
    return value if is_size(value) else default


def _fits(folder: Folder, memory: Mapping[str, int], device: Mapping[str, Any]) -> None:
    room = device.get("max_recommended_working_set_size") or device.get("memory_size")
    needed = memory["weights"] + memory["kv_cache"]
    if room and needed > room:
        folder.warn(
            "memory",
            f"weights and KV cache take {gigabytes(needed)}, and this device has "
            f"{gigabytes(room)} for them",
            "The machine swaps, or the process is ended.",
            "Take a conversion with fewer bits, a shorter context, or --kv-bits 8. On a Mac, `sudo "
            "sysctl iogpu.wired_limit_mb=N` gives the GPU more of the memory that is there.",
        )


def gigabytes(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
