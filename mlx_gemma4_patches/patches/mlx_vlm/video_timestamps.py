"""A video of a minute is said to be a quarter of one.

What the user sees: Gemma 4 gives wrong times, and takes slow events for fast ones: a film of 60 s
is stamped 00:00 to 00:15.

Why: of more frames than 32 the processor takes 32, and stamps them at the rate of all. Since 0.7.0
the loader reads no more than 32 of a file, and the fault is left for frames that the caller has.

The fix: the rate is that of the frames which are kept. It can be deleted when the processor knows
the times of the frames it keeps.
"""

from __future__ import annotations

from ...hosts.mlx_vlm import video
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_CALL = "mlx_vlm.models.gemma4.processing_gemma4:Gemma4VideoProcessor.__call__"


def probe() -> Finding:
    from mlx_vlm.models.gemma4 import processing_gemma4

    if not hasattr(processing_gemma4, "Gemma4VideoProcessor"):
        raise NotApplicable("this mlx-vlm takes no videos")
    last = video.last_time(processing_gemma4.Gemma4VideoProcessor(num_frames=4))
    return Finding(abs(last - 15) > 0.5, f"of 31 frames at 2 a second the last is at {last:.1f} s")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_CALL, video.with_rates_of_what_is_kept)


PATCH = Patch(id="mlx_vlm.video_timestamps", targets=(_CALL,), apply=apply, probe=probe)
