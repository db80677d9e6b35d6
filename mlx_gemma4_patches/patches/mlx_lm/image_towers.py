"""A model that mlx-lm has loaded does not know where its towers for pictures and sounds are.

What the user sees: ``mlx_lm.generate --image`` ends in "does not take images" for Gemma 4, and the
server takes none.

Why: mlx-lm loads the text model alone, and none of its image processors is Gemma 4's.

What is added: a Gemma 4 remembers its folder, from which mlx-vlm loads the towers when the first
picture comes (``hosts.mlx_lm.media``); since 0.32.1 ``load_processor`` answers with a processor.
Without mlx-vlm, or where the checkpoint has no towers, one line says so and text goes on. It can be
deleted when mlx-lm has images for Gemma 4.

Upstream: not asked for yet.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from ...gemma4 import tiny
from ...hosts.mlx_lm import media
from ...hosts.mlx_lm.chat import require_gemma4
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_LOAD = "mlx_lm.utils:load_model"
_PROCESSOR = "mlx_lm.processors:load_processor"  # since 0.32.1


def probe() -> Finding:
    require_gemma4()
    from mlx_lm.utils import load_model

    with tempfile.TemporaryDirectory() as folder:
        model, _ = load_model(tiny.save("dense", Path(folder)), lazy=True)
        found = media.folder_of(model)
    return Finding(
        found is None, f"the folder of a loaded model: {'known' if found else 'unknown'}"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD, _load)
    with contextlib.suppress(ImportError):  # before 0.32.1
        surgery.wrap(_PROCESSOR, _processor)


def _load(original):
    def load_model(model_path, *args, **kwargs):
        made = original(model_path, *args, **kwargs)
        if is_gemma4(made[0]):
            media.remember(made[0], model_path)
        return made

    return load_model


def _processor(original):
    def load_processor(model, config):
        if not is_gemma4(model) or not config.get("vision_config"):
            return original(model, config)
        return media.Processor.of(model)

    return load_processor


PATCH = Patch(
    id="mlx_lm.image_towers",
    targets=(f"{_LOAD}(model_path)", f"{_PROCESSOR}(model, config)"),
    apply=apply,
    probe=probe,
)
