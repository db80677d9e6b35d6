"""Gemma 4 loaded in one thread fails in another: "There is no Stream(gpu, 1) in current thread".

What the user sees: that RuntimeError at the first token, in applications that load the model in one
thread and generate in another.

Why: as in mlx-lm, the frequencies of ``ProportionalRoPE`` are no parameters, so loading leaves them
lazy, and a lazy array can only be evaluated in the thread that made it.

The fix: they are evaluated where they are made. It can be deleted when no supported release is
older than 0.6.4.

Upstream: Blaizzy/mlx-vlm#1854. On the CPU it shows from mlx 0.32 on.
"""

from __future__ import annotations

from ...gemma4 import lazy_arrays
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.models.gemma4.rope_utils:ProportionalRoPE.__init__"


def probe() -> Finding:
    try:
        from mlx_vlm.models.gemma4.rope_utils import ProportionalRoPE
    except ImportError:
        raise NotApplicable("this mlx-vlm has no such rotation of Gemma 4's own") from None

    rope = ProportionalRoPE(64, scaling_config={"partial_rotary_factor": 0.25})
    return lazy_arrays.finding(rope._freqs)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, lazy_arrays.with_freqs)


PATCH = Patch(id="mlx_vlm.rope_freqs_thread", targets=(_TARGET,), apply=apply, probe=probe)
