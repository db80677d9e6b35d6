"""The times of a video's frames, which the processors of E2B to 31B and of the 12B both miss."""

from __future__ import annotations

import numpy as np


def with_rates_of_what_is_kept(original):
    """``__call__`` of a video processor, for ``surgery.wrap``."""

    def __call__(self, videos, fps=None):
        listed = videos if isinstance(videos, list) else [videos]
        rates = fps if isinstance(fps, list) else [fps] * len(listed)
        if len(rates) == len(listed):
            fps = [
                _kept(len(video), self.num_frames, rate or self.default_fps)
                for video, rate in zip(listed, rates, strict=True)
            ]
        return original(self, videos, fps)

    return __call__


def _kept(frames: int, most: int, rate: float) -> float:
    """Frames a second of the ``most`` that the host spreads from the first to the last."""
    return rate * (most - 1) / (frames - 1) if frames > most > 1 else rate


def last_time(processor) -> float:
    """Seconds at which ``processor``, of 4 frames, has the last of 31 at 2 a second."""
    frames = np.zeros((31, 3, 48, 48), np.uint8)
    return processor([frames], fps=2.0)["frame_timestamps"][0][-1]
