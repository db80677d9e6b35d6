"""A stereo recording that is not at 16 kHz is heard far too slow.

What the user sees: Gemma 4 understands nothing of it, or is told of a clip several times as long.

Why: up to 0.7.1 the host resamples before it mixes the channels down, along the axis of the
channels, so that the samples stay at the rate of the file.

The fix: for Gemma 4 the host mixes down without resampling, and what it then has is resampled by
the same function. It can be deleted when releases before 0.7.2 are no longer supported.
"""

from __future__ import annotations

import contextlib
import io
import wave
from contextvars import ContextVar

import numpy as np

from ...hosts.mlx_vlm import models
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PREPARE = "mlx_vlm.utils:prepare_inputs"
_LOAD = "mlx_vlm.utils:load_audio"

_for_gemma4: ContextVar[bool] = ContextVar("inputs of a Gemma 4 are prepared", default=False)


def probe() -> Finding:
    from mlx_vlm import utils

    if hasattr(utils, "resample_audio"):
        raise NotApplicable("this mlx-vlm resamples by itself")
    from mlx_audio import utils as audio_utils

    file = io.BytesIO()
    with contextlib.closing(wave.open(file, "wb")) as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(4 * 800))
    shapes, resample = [], audio_utils.resample_audio
    before = _for_gemma4.set(True)
    audio_utils.resample_audio = lambda sound, *rates: shapes.append(sound.shape) or sound
    try:
        utils.load_audio(file, sr=16_000)
    finally:
        audio_utils.resample_audio = resample
        _for_gemma4.reset(before)
    return Finding(shapes != [(800,)], f"800 samples of stereo are resampled in the shape {shapes}")


class _AnyRate(int):
    """A rate that every other equals; it remembers which."""

    found: int | None = None

    def __eq__(self, other) -> bool:
        self.found = other
        return True

    def __ne__(self, other) -> bool:
        return not self == other

    __hash__ = int.__hash__


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPARE, _prepare_inputs)
    surgery.wrap(_LOAD, _load_audio)


def _prepare_inputs(original):
    def prepare_inputs(processor, *args, **kwargs):
        before = _for_gemma4.set(models.is_gemma4(processor))
        try:
            return original(processor, *args, **kwargs)
        finally:
            _for_gemma4.reset(before)

    return prepare_inputs


def _load_audio(original):
    def load_audio(file, sr, *args, **kwargs):
        if isinstance(file, np.ndarray) or not _for_gemma4.get():
            return original(file, sr, *args, **kwargs)
        from mlx_audio.utils import resample_audio

        rate = _AnyRate(sr)
        sound = original(file, rate, *args, **kwargs)
        if rate.found in (None, int(rate)):
            return sound
        return np.asarray(resample_audio(sound, rate.found, sr), dtype=np.float32)

    return load_audio


PATCH = Patch(id="mlx_vlm.audio_stereo", targets=(_PREPARE, _LOAD), apply=apply, probe=probe)
