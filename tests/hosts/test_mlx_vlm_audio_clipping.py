"""mlx-vlm loads a Gemma 4 whose audio tower does not clip, and hears what it hears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny, tiny_audio
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")
from mlx_vlm.utils import load_model

ID = "mlx_vlm.audio_clipping"
_WIDE = {"min": -1e30, "max": 1e30}


def _checkpoint(folder: Path, clips: bool) -> Path:
    """With ears; bounds are there where ``clips``, and too wide to do anything."""
    tiny_audio.add_to(tiny.save("e2b", folder, shared_kv=True))
    config, tensors = folder / "config.json", folder / "model.safetensors"
    settings = json.loads(config.read_text())
    settings["audio_config"]["use_clipped_linears"] = clips
    config.write_text(json.dumps(settings))
    weights, made = mx.load(str(tensors)), {}
    for name, value in weights.items():
        if not name.endswith(("put_min", "put_max")):
            made[name] = value
        elif clips:
            made[name] = mx.array(_WIDE[name[-3:]])
    mx.eval(made)
    mx.save_safetensors(str(tensors), made, metadata={"format": "pt"})
    return folder


def _heard(folder: Path) -> Any:
    model = load_model(folder)
    mel = mx.array(tiny_audio.sound(60 * 128)).reshape(1, 60, 128)
    rows = model.audio_tower(mel, mx.zeros((1, 60), dtype=mx.bool_))
    return rows[0] if isinstance(rows, tuple) else rows


class TestAudioClipping(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def untouched(self) -> Any:
        """A tower that clips."""
        return _heard(tiny_audio.add_to(tiny.save("e2b", self.folder, shared_kv=True)))


def test_a_tower_that_does_not_clip_hears_what_one_with_wide_bounds_hears(tmp_path: Path) -> None:
    with patched(ID):
        heard = _heard(_checkpoint(tmp_path / "without", clips=False))
        wide = _heard(_checkpoint(tmp_path / "wide", clips=True))
    assert mx.array_equal(heard, wide)
    assert heard.abs().max().item() > 0
