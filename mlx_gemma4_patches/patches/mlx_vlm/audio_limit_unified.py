"""Gemma 4 12B hears the first 30 seconds of a recording, and nobody is told.

What the user sees: answers that know nothing of what is said after half a minute.

Why: the processor limits a sound to 750 soft tokens, as it must for the audio tower of E2B and E4B.
The 12B has no tower and takes samples as they are, 640 each; transformers knows no limit there.

The fix: as many soft tokens as the sound has. It can be deleted when
``Gemma4UnifiedProcessor`` counts without ``audio_seq_length``.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ...gemma4 import soft_tokens
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MODULE = "mlx_vlm.models.gemma4_unified.processing_gemma4_unified"
_COUNT = f"{_MODULE}:Gemma4UnifiedProcessor._compute_audio_num_tokens"


def probe() -> Finding:
    try:
        from mlx_vlm.models.gemma4_unified import processing_gemma4_unified as unified
    except ImportError:
        raise NotApplicable("this mlx-vlm has no Gemma 4 12B") from None
    processor = SimpleNamespace(
        feature_extractor=object(), audio_seq_length=750, audio_ms_per_token=40
    )
    sound = np.zeros(60 * soft_tokens.SAMPLE_RATE, np.float32)
    count = unified.Gemma4UnifiedProcessor._compute_audio_num_tokens(processor, sound, 16_000)
    return Finding(count != 1500, f"60 s of sound have {count} soft tokens of 1500")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_COUNT, _compute_audio_num_tokens)


def _compute_audio_num_tokens(original):
    def compute_audio_num_tokens(self, audio_waveform, sampling_rate):
        if len(audio_waveform) <= soft_tokens.LONGEST_SOUND:
            return original(self, audio_waveform, sampling_rate)
        return soft_tokens.of_sound_unified(len(audio_waveform))

    return compute_audio_num_tokens


PATCH = Patch(id="mlx_vlm.audio_limit_unified", targets=(_COUNT,), apply=apply, probe=probe)
