"""Gemma 4 sees other frames of a video than in transformers (opt-in).

What the user sees: other answers about a video than transformers gives.

Why: the host reads two frames a second, 32 at most. transformers reads 32, evenly spread over the
whole video, whatever its length.

The fix: 32 frames, the i-th at i / 32 of the video; all of one that has fewer. A video of 10 s then
has 32 frames for 20 and its prompt grows as much, and ``fps`` of a request no longer counts: that
is the user's to choose, so the patch is opt-in. It can be deleted when the host samples as
transformers does.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np

from ...gemma4 import video
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_LOADER = "mlx_vlm.utils:load_video"
_PROCESSOR = "mlx_vlm.models.gemma4.processing_gemma4:Gemma4VideoProcessor"


def probe() -> Finding:
    from mlx_vlm import utils

    load_video = getattr(utils, "load_video", probe)
    if "frame_sampler" not in inspect.signature(load_video).parameters:
        raise NotApplicable("this mlx-vlm asks no processor which frames to read")
    from mlx_vlm.models.gemma4.processing_gemma4 import Gemma4VideoProcessor

    processor = Gemma4VideoProcessor()
    if not getattr(processor, "sample_frames_in_loader", False):
        return Finding(True, "the host reads 2 frames a second, not 32")
    frames = processor.sample_frames(SimpleNamespace(total_num_frames=100), fps=2.0)
    last = int(frames[-1])
    return Finding(last != 96, f"of 100 frames {len(frames)} are read, the last is number {last}")


def apply(surgery: Surgery) -> None:
    surgery.add(f"{_PROCESSOR}.sample_frames_in_loader", True)
    surgery.add(f"{_PROCESSOR}.sample_frames", _sample_frames)


def _sample_frames(self, metadata, num_frames=None, fps=None, **how):
    """Indices of the frames to read, (frames,) int."""
    return np.array(video.frames(metadata.total_num_frames, self.num_frames))


PATCH = Patch(
    id="mlx_vlm.video_frames",
    targets=(_LOADER, f"{_PROCESSOR}.__call__"),
    apply=apply,
    probe=probe,
)
