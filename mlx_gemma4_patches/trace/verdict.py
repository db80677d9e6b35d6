"""What a trace of one case comes to."""

from __future__ import annotations

from typing import Any

Tensors = dict[str, dict[str, Any]]


def is_beyond(tensor: dict[str, Any]) -> bool:
    return bool(tensor["error"] > tensor["limit"])


def first_beyond(tensors: Tensors) -> str | None:
    """The first tensor on the way through the model that leaves its limit."""
    return next((name for name, tensor in tensors.items() if is_beyond(tensor)), None)


def times(tensor: dict[str, Any]) -> float:
    """The error as a multiple of the limit."""
    return float(tensor["error"] / tensor["limit"])


def is_right(seen: dict[str, Any]) -> bool:
    """Whether nothing that was read leaves its limit; what cannot be read is not wrong."""
    return "error" not in seen and first_beyond(seen.get("tensors", {})) is None


def words(seen: dict[str, Any]) -> str:
    """One mode of one case in a few words."""
    if "tensors" not in seen:
        return f"error: {seen['error']}" if "error" in seen else "-"
    tensors = seen["tensors"]
    name = first_beyond(tensors)
    if name is None:
        return f"{max(map(times, tensors.values())):.2f} of the limit"
    position = tensors[name]["position"]
    where = "" if position is None or name == "logits" else f", token {position} on"
    return f"{name}{where}: {times(tensors[name]):.2g} x the limit"
