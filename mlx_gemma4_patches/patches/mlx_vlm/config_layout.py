"""Checkpoints that transformers saved do not load: "Expected shape ... but received shape ...".

What the user sees: a fine-tune or merge, saved by transformers 5.15 or newer, ends in that
ValueError for q_proj of a full-attention layer.

Why: transformers writes another config.json than Google (see ``gemma4.layout``), and where mlx-vlm
misses a setting it takes that of E2B.

The fix: the missing settings are added as the file is read, so ``mlx_vlm.convert`` writes them too,
and what it converts loads anywhere. It can be deleted when mlx-vlm reads ``per_layer_config``.

Upstream: huggingface/transformers#47384 (5.15) brought the layout.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ...gemma4 import layout, tiny
from ...gemma4.config import is_gemma4, text_config
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.utils:load_config"


def probe() -> Finding:
    from mlx_vlm.utils import load_config

    google = tiny.config("dense")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(layout.as_transformers(google)))
        text = text_config(load_config(Path(folder)))
    missing = sorted(google["text_config"].keys() - text.keys())
    if missing:
        return Finding(True, f"of a config.json by transformers it misses {', '.join(missing)}")
    return Finding(False, "of a config.json by transformers it reads the sizes of all layers")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_settings)


def _with_settings(original):
    def load_config(model_path, **kwargs):
        config = original(model_path, **kwargs)
        if is_gemma4(config):
            text = text_config(config)
            text.update(layout.settings_left_out(text))
        return config

    return load_config


PATCH = Patch(
    id="mlx_vlm.config_layout",
    targets=(f"{_TARGET}(model_path)",),
    apply=apply,
    probe=probe,
)
