"""A quarter of all sounds get one soft token too many.

What the user sees: Gemma 4 E2B and E4B misunderstand some recordings; of two that differ by a few
milliseconds one is understood and the other is not.

Why: the processor counts 40 ms a soft token and rounds up. The audio tower counts frames of the
spectrogram, which are complete ones only. Where they disagree, the last placeholder of a clip
shows the model a row of padding, or the first one of the next clip.

The fix: as many as the tower makes. It can be deleted when ``_compute_audio_num_tokens`` counts
frames, as transformers does.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ...gemma4 import soft_tokens
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_COUNT = "mlx_vlm.models.gemma4.processing_gemma4:Gemma4Processor._compute_audio_num_tokens"
_SAMPLES = (161, 640, 9000, 16000, 16001, 20000, 480_001)


def probe() -> Finding:
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor
    from mlx_vlm.models.gemma4.processing_gemma4 import Gemma4Processor

    extractor = Gemma4AudioFeatureExtractor()
    (frames,) = extractor(np.zeros(161, np.float32))["input_features_mask"]
    if frames.sum() != 1:
        raise NotApplicable("this mlx-vlm hears sounds through another spectrogram")
    processor = SimpleNamespace(
        feature_extractor=extractor, audio_seq_length=750, audio_ms_per_token=40
    )
    wrong = []
    for samples in _SAMPLES:
        sound = np.zeros(samples, np.float32)
        counted = Gemma4Processor._compute_audio_num_tokens(processor, sound, 16_000)
        (frames,) = extractor(sound)["input_features_mask"]
        made = -(-int(frames.sum()) // 4)
        if counted != made:
            wrong.append(f"{counted} for {made}")
    if wrong:
        return Finding(True, f"soft tokens of {len(wrong)} sounds miscounted: {', '.join(wrong)}")
    return Finding(False, f"soft tokens of {len(_SAMPLES)} sounds counted as the tower makes them")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_COUNT, _compute_audio_num_tokens)


def _compute_audio_num_tokens(original):
    def compute_audio_num_tokens(self, audio_waveform, sampling_rate):
        if not hasattr(self.feature_extractor, "mel_filters"):  # the 12B hears samples as they are
            return original(self, audio_waveform, sampling_rate)
        return min(soft_tokens.of_sound(len(audio_waveform)), self.audio_seq_length)

    return compute_audio_num_tokens


PATCH = Patch(id="mlx_vlm.audio_tokens", targets=(_COUNT,), apply=apply, probe=probe)
