"""Which frames of a video Gemma 4 sees, from transformers' BaseVideoProcessor."""

from __future__ import annotations

FRAMES = 32  # of a video, at most


def frames(total: int, most: int = FRAMES) -> list[int]:
    """Indices of the frames to read of ``total``: evenly spread, the first among them.

    transformers refuses a video of fewer frames than ``most``; here it is seen whole.
    """
    kept = min(total, most)
    return [i * total // kept for i in range(kept)]
