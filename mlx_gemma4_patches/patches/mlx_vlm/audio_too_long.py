"""Of a sound of a minute half is heard, and nobody is told.

What the user sees: E2B and E4B write down the first 30 s of a recording as if it ended there.

Why: that is what these models were made for, and the spectrogram is cut there, in transformers too.

The fix: a sound that is longer raises Python's UserWarning, which is shown once; it is cut as
before. It can be deleted when the host says so.
"""

from __future__ import annotations

import warnings

import numpy as np

from ...gemma4 import soft_tokens
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULE = "mlx_vlm.models.gemma4.audio_feature_extractor"
_EXTRACT = f"{_MODULE}:Gemma4AudioFeatureExtractor.__call__"


def probe() -> Finding:
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor

    sound = np.zeros(soft_tokens.LONGEST_SOUND + soft_tokens.SAMPLE_RATE, np.float32)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Gemma4AudioFeatureExtractor()([sound])
    said = [str(warning.message) for warning in told if "30 s" in str(warning.message)]
    return Finding(not said, f"of a sound of 31 s: {said[0] if said else 'nothing is said'}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_EXTRACT, _telling)


def _telling(original):
    def __call__(self, raw_speech, *args, **kwargs):
        # several clips, or one
        clips = raw_speech if isinstance(raw_speech, (list, tuple)) else [raw_speech]
        if max(map(np.size, clips), default=0) > soft_tokens.LONGEST_SOUND:
            warnings.warn(
                "a sound is longer than 30 s: Gemma 4 E2B and E4B hear its first 30 s", stacklevel=2
            )
        return original(self, raw_speech, *args, **kwargs)

    return __call__


PATCH = Patch(
    id="mlx_vlm.audio_too_long",
    targets=(f"{_EXTRACT}(self, raw_speech)",),
    apply=apply,
    probe=probe,
)
