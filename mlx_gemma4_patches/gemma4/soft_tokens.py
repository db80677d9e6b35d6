"""How many soft tokens Gemma 4 makes of a sound or a picture.

From transformers' Gemma4AudioFeatureExtractor, Gemma4AudioModel and Gemma4ImageProcessor. The
placeholders of a prompt must be as many, or what the model sees is shifted or lost.
"""

from __future__ import annotations

import math

SAMPLE_RATE = 16_000  # Hz
SHORTEST_SOUND = 161  # samples; one soft token
LONGEST_SOUND = 30 * SAMPLE_RATE  # samples; E2B and E4B hear no more of one clip
BUDGETS = (70, 140, 280, 560, 1120)  # soft tokens of a picture at most

_HOP = 160  # samples between two frames of the spectrogram
_FRAME = 320  # samples in one; the first is centred on the first sample
_SAMPLES_UNIFIED = 640  # samples of one soft token of the 12B, which has no audio tower
_SIDE = 48  # pixels of a soft token: 3 x 3 patches of 16 x 16


def of_sound(samples: int) -> int:
    """Soft tokens of a clip for E2B and E4B: 0 below 161 samples, 750 from 30 s on."""
    frames = (min(samples, LONGEST_SOUND) + _FRAME // 2 - (_FRAME + 1)) // _HOP + 1
    return -(-max(frames, 0) // 4)  # the tower halves them twice


def of_sound_unified(samples: int) -> int:
    """Soft tokens of a clip for the 12B, which knows no limit."""
    return -(-samples // _SAMPLES_UNIFIED)


def of_picture(width: int, height: int, budget: int = 280) -> int:
    """Soft tokens of a picture of so many pixels, or of one frame of a video.

    It is resized to whole soft tokens, its sides in proportion, as large as ``budget`` allows. One
    that is too thin for that is one soft token thin.

    Raises ValueError: a side is 0.
    """
    if min(width, height) < 1:
        raise ValueError(f"a picture of {width} x {height} pixels")
    factor = math.sqrt(budget * _SIDE**2 / (width * height))
    across, down = (math.floor(factor * side / _SIDE) for side in (width, height))
    if not down:
        return min(width // height, budget)
    if not across:
        return min(height // width, budget)
    return across * down
