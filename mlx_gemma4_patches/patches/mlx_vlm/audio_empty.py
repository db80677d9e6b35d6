"""A recording of less than 10 ms ends in "operands could not be broadcast".

What the user sees: an error about shapes for an empty file, or one that was cut too early; with
other clips beside it, answers to other sounds.

Why: the audio tower makes no soft token of it, and the host counts one or none without a word.

The fix: such a sound is refused, with its length. It can be deleted when the processor refuses
sounds without a soft token.
"""

from __future__ import annotations

import numpy as np

from ...gemma4 import soft_tokens
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_EXTRACT = "mlx_vlm.models.gemma4.audio_feature_extractor:Gemma4AudioFeatureExtractor.__call__"


def probe() -> Finding:
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor

    extractor = Gemma4AudioFeatureExtractor()
    if extractor(np.zeros(161, np.float32))["input_features_mask"][0].sum() != 1:
        raise NotApplicable("this mlx-vlm hears sounds through another spectrogram")
    try:
        made = extractor([np.zeros(1, np.float32)])
    except ValueError as error:
        is_told = "1 sample" in str(error)
        return Finding(not is_told, f"a sound of 1 sample is refused: {error}")
    frames = made["input_features_mask"][0].sum()
    return Finding(True, f"a sound of 1 sample is taken, with {frames} frames")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_EXTRACT, _refusing)


def _refusing(original):
    def __call__(self, raw_speech, *args, **kwargs):
        for sound in _clips(raw_speech):
            if (samples := np.size(sound)) and soft_tokens.of_sound(samples):
                continue
            raise ValueError(
                f"a sound of {samples} sample{'' if samples == 1 else 's'} is too short: "
                f"Gemma 4 hears from {soft_tokens.SHORTEST_SOUND} samples on, 10 ms"
            )
        return original(self, raw_speech, *args, **kwargs)

    return __call__


def _clips(raw_speech):
    """The clips of what an extractor is given: one array, a list of numbers, or several clips."""
    several = isinstance(raw_speech, (list, tuple)) and raw_speech and np.ndim(raw_speech[0])
    if several or np.ndim(raw_speech) > 1:
        return raw_speech
    return [raw_speech]


PATCH = Patch(id="mlx_vlm.audio_empty", targets=(_EXTRACT,), apply=apply, probe=probe)
