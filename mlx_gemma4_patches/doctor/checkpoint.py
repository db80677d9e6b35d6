"""A checkpoint's findings: what is wrong with it, what that means, and what to do.

Only JSON files, the template and the headers of safetensors are read. Whether an installed host
loads it is asked of the host itself: with weights that are never read.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from ..gemma4 import layout, split_table
from ..gemma4.config import MODEL_TYPES
from ..settings import in_one_line
from . import checkpoint_template, checkpoint_tokens, checkpoint_weights
from .checkpoint_files import Folder, Remark

_LOADERS = {"mlx_lm": "mlx_lm.utils", "mlx_vlm": "mlx_vlm.utils"}
_CODE = ("model_file", "auto_map", "ple_storage")  # keys by which a host reads or runs other files
_LEVELS = ("problem", "warning", "fact")
_LONGEST = 300  # characters of a host's error
Loads = dict[str, dict[str, str | None]]  # by "stock" and "patched", by host: an error or None


def examine(path: Path, context: int) -> dict[str, Any]:
    """All that can be said of the model folder at ``path`` without a host.

    Args:
        context: tokens of the conversation whose KV cache is counted.

    Returns:
        ``name`` (of the folder), ``model_type``, what ``checkpoint_weights.look``,
        ``checkpoint_tokens.look`` and ``checkpoint_template.look`` (``template``) return, ``sound``
        (whether it is worth a host's trial), and ``findings``, the worst first.
    """
    folder = Folder(path)
    found: dict[str, Any] = {"name": _name(path), "model_type": folder.config.get("model_type")}
    kind = found["model_type"]
    if folder.config and kind not in MODEL_TYPES and not str(kind).endswith("_assistant"):
        folder.problem(
            "config",
            f"model_type is {kind!r:.60}",
            "No host takes this for a Gemma 4, and neither do the patches.",
            f"It must be one of {', '.join(MODEL_TYPES)}.",
        )
    found |= checkpoint_weights.look(folder, context, _device())
    found["sound"] = kind in MODEL_TYPES and "shape" in found and not _worst(folder.remarks)
    if folder.config:
        found |= checkpoint_tokens.look(folder)
        if found.get("shape") != "assistant":
            found["template"] = checkpoint_template.look(folder)
    found["findings"] = _in_order(folder.remarks)
    return found


def judge_loading(found: dict[str, Any], loads: Loads) -> None:
    """Add to ``found`` what came of ``load`` without and with the patches, by host."""
    remarks = []
    found["loads"] = loads
    for host, error in loads["patched"].items():
        before = loads["stock"].get(host)
        if error:
            do = "If the conversion is right, report it with --report."
            means = f"{host} cannot use this checkpoint here."
            remarks.append(Remark("problem", "loading", f"{host}: {error}", means, do))
        elif before:
            means = "The patches mend that."
            remarks.append(Remark("fact", "loading", f"stock {host}: {before}", means))
        else:
            remarks.append(Remark("fact", "loading", f"{host} loads it, with and without patches"))
    found["findings"] = _in_order([*(Remark(**r) for r in found["findings"]), *remarks])


def load(host: str, path: str) -> str | None:
    """Whether ``host`` takes the checkpoint at ``path``, with the weights never read.

    Returns:
        None, or the host's error in one line.
    """
    with TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        _copy_without_code(Path(path), Path(temporary))
        # both would read weights: a copy of the table is taken for one, a large table left whole
        stack.enter_context(mock.patch.object(layout, "is_copy", return_value=True))
        stack.enter_context(mock.patch.object(split_table, "_largest_buffer", return_value=None))
        try:
            importlib.import_module(_LOADERS[host]).load_model(Path(temporary), lazy=True)
        except Exception as error:
            line = in_one_line(error).replace(temporary, "...")
            return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
    return None


def loaders(hosts: list[str]) -> list[str]:
    """Those of ``hosts`` that load checkpoints themselves; vllm-mlx leaves it to the others."""
    return [host for host in hosts if host in _LOADERS]


def _copy_without_code(path: Path, to: Path) -> None:
    config = json.loads((path / "config.json").read_bytes())
    for key in _CODE:
        config.pop(key, None)
    (to / "config.json").write_text(json.dumps(config))
    if (path / "generation_config.json").is_file():
        shutil.copy(path / "generation_config.json", to)
    for file in path.glob("*.safetensors"):
        os.symlink(file.resolve(), to / file.name)


def _device() -> dict[str, Any]:
    try:
        import mlx.core as mx

        return mx.device_info()
    except Exception:  # no mlx, or none that knows its device
        return {}


def _name(path: Path) -> str:
    """A name that says nothing of where the folder lies."""
    parts = path.resolve().parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    return cached.removeprefix("models--").replace("--", "/") if cached else parts[-1]


def _worst(remarks: list[Remark]) -> bool:
    return any(remark.level == "problem" for remark in remarks)


def _in_order(remarks: list[Remark]) -> list[dict[str, str]]:
    return [r._asdict() for r in sorted(remarks, key=lambda r: _LEVELS.index(r.level))]
