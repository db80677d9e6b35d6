"""A conversion of the user's beside the original, on a prompt: where it loses what."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..children import Ended, messages
from . import cases, conversion

# imported by the child alone, as it needs torch
_ORIGINAL = f"{__package__}.original"
_SECONDS = 1800  # for one step, such as to load a model from a slow disk
_STEEPEST = 3


class CannotTrace(Exception):
    """Nothing can be compared; the message says why, and what to do."""


def compare(
    model: Path, reference: Path | None, prompt: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Have an installed host read ``prompt`` with ``model``, and transformers with ``reference``.

    Args:
        model: the folder of a checkpoint that mlx-lm or mlx-vlm loads.
        reference: the folder of the original; ``model`` itself, if left out.
        say: called with what is done next.

    Returns:
        ``host``, ``tokens``, ``quantized`` (bool), ``tensors`` (by name ``error`` and ``limit``),
        ``steepest`` (the layers in which the error grows most, with it before and after),
        ``next`` (what either says next, two texts), and ``memory`` (the most bytes of the
        original's weights that were in memory, and of what).

    Raises:
        CannotTrace: torch is missing, or what is needed does not load.
    """
    missing = [name for name in ("torch", "safetensors", "transformers") if not find_spec(name)]
    if missing:
        raise CannotTrace(
            f"--model needs {' and '.join(missing)}: pip install 'mlx-gemma4-patches[trace]'"
        )
    is_quantized = _is_quantized(model)
    if reference is None and is_quantized:
        raise CannotTrace(f"{model.name} is quantized: --reference PATH names the original")
    reference = reference or model
    if _is_quantized(reference):
        raise CannotTrace(f"{reference.name} is quantized, and so no original")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "seen.safetensors"))
        host, tokens = _read(model, prompt, file, say)
        found: dict[str, Any] = {"host": host, "tokens": tokens, "quantized": is_quantized}
        found["tensors"] = {}
        try:
            for kind, *message in _messages([_ORIGINAL, str(reference), file], say):
                if kind == "tensor":
                    found["tensors"][message[0]] = message[1]
                else:
                    found[kind] = message
        except Ended as how:
            raise CannotTrace(f"transformers with {reference.name}: {how}") from None
    return found | {"steepest": _steepest(found["tensors"])}


def _is_quantized(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return bool(config.get("quantization") or config.get("quantization_config"))
    except (OSError, ValueError, AttributeError) as error:
        raise CannotTrace(f"{folder / 'config.json'} cannot be read: {error}") from None


def _read(model: Path, prompt: str, file: str, say: Callable[[str], None]) -> tuple[str, int]:
    """Which host has read the prompt, and how many tokens it has."""
    failed = []
    for host in filter(find_spec, cases.WAYS):
        try:
            *_, (_, tokens) = _messages([conversion.__name__, host, str(model), prompt, file], say)
            return host, tokens
        except Ended as how:
            failed.append(f"{host.replace('_', '-')}: {how}")
    raise CannotTrace("; ".join(failed) or "neither mlx-lm nor mlx-vlm is installed")


def _messages(command: Sequence[str], say: Callable[[str], None]) -> list[list[Any]]:
    """What a child tells, without its progress."""
    kept = []
    whole = [sys.executable, "-m", *command]
    for message in messages(whole, os.environ, threading.Event(), _SECONDS):
        if message[0] == "begin":
            say(message[1])
        else:
            kept.append(message)
    return kept


def _steepest(tensors: dict[str, dict[str, Any]]) -> list[tuple[str, float, float]]:
    results = [n for n in tensors if n == "embeddings" or n.removeprefix("layer ").isdigit()]
    errors = [tensors[name]["error"] for name in results]
    steps = list(zip(results[1:], errors, errors[1:], strict=False))
    return sorted(steps, key=lambda step: step[1] - step[2])[:_STEEPEST]
