"""Checkpoints without vision or audio do not load: "Missing N parameters".

What the user sees: up to 0.6.15 a text-only conversion of a Gemma 4 ends in "Missing 439
parameters: vision_tower...", and a config.json without ``audio_config`` in "Missing 752 parameters:
audio_tower...". With ``vision_config`` null every release ends in "'NoneType' object has no
attribute 'model_type'".

Why: mlx-vlm fills in a missing config with defaults, builds the tower and misses its weights. From
0.6.16 on it drops a tower that the checkpoint does not name, but not one that is null.

The fix: a tower that the checkpoint does not name is dropped as soon as it is built, which a null
is as well. It can be deleted when mlx-vlm takes ``vision_config`` null and no supported release is
older than 0.6.16.

Upstream: Blaizzy/mlx-vlm#1879 (0.6.14, without vision_config), #1963 (0.6.16).
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from ...gemma4 import tiny
from ...gemma4.config import is_gemma4
from ...patch import Finding, Patch
from ...settings import log
from ...surgery import Surgery

_LOAD_CONFIG = "mlx_vlm.utils:load_config"
_GET = "mlx_vlm.utils:get_model_and_args"
_TOWERS = ("vision_tower", "embed_vision", "audio_tower", "embed_audio")


def probe() -> Finding:
    from mlx_vlm.utils import load_model

    config, weights = tiny.config("dense"), tiny.weights("dense")
    text = {name: value for name, value in weights.items() if ".language_model." in name}
    cases = {
        "no audio_config": ({k: v for k, v in config.items() if k != "audio_config"}, weights),
        "no vision weights": (config, text),
        "vision_config null": ({**config, "vision_config": None}, text),
    }
    refused = []
    for name, (settings, tensors) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(settings))
            file = str(Path(folder) / "model.safetensors")
            mx.save_safetensors(file, tensors, metadata={"format": "pt"})
            try:
                load_model(Path(folder))
            except (ValueError, AttributeError):
                refused.append(name)
    if refused:
        return Finding(True, f"a checkpoint does not load that has {', '.join(refused)}")
    return Finding(False, f"checkpoints load that have {', '.join(cases)}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD_CONFIG, _with_folder)
    surgery.wrap(_GET, _with_towers_dropped)


class _Config(dict):
    """A config.json that knows where it was read."""

    folder: Path


def _with_folder(original):
    def load_config(model_path, **kwargs):
        config = original(model_path, **kwargs)
        if is_gemma4(config) and config["model_type"] == "gemma4" and isinstance(model_path, Path):
            config = _Config(config)
            config.folder = model_path
        return config

    return load_config


def _with_towers_dropped(original):
    def get_model_and_args(config, *args, **kwargs):
        package, name = original(config, *args, **kwargs)
        return (_Package(package, config.folder) if isinstance(config, _Config) else package), name

    return get_model_and_args


class _Package:
    """The host's package of a model, for the checkpoint in a folder."""

    def __init__(self, package, folder: Path):
        self._package = package
        self._folder = folder

    def __getattr__(self, name):
        return getattr(self._package, name)

    def Model(self, config):
        if config.vision_config is None:
            config.vision_config = self._package.VisionConfig()
        model = self._package.Model(config)
        there = _modules(self._folder)
        for name in _TOWERS:
            if there and isinstance(model.get(name), nn.Module) and name not in there:
                setattr(model, name, None)
                log.warning("%s has no weights for %s, which is left out", self._folder, name)
        return model


def _modules(folder: Path) -> set[str]:
    """The modules that a checkpoint has tensors of, or its index says so.

    None in a folder without tensors, such as one that only lends its config.json.
    """
    names = [name for file in folder.glob("*.safetensors") for name in mx.load(str(file))]
    # a shard that is not there is missed, not left out
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        names += dict(index["weight_map"])
    return {name.removeprefix("model.").partition(".")[0] for name in names}


PATCH = Patch(
    id="mlx_vlm.text_only",
    targets=(f"{_LOAD_CONFIG}(model_path)", f"{_GET}(config)"),
    apply=apply,
    probe=probe,
)
