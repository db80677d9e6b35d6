"""A sound to a model of another thread fails: "There is no Stream(gpu, 0) in current thread".

What the user sees: that RuntimeError for every request with a sound, in applications that load the
model in one thread and generate in another, such as vllm-mlx 0.4.1; text and pictures are answered.

Why: as with the frequencies of ``mlx_vlm.rope_freqs_thread``, the timescales of the audio tower's
relative positions are no parameters, so loading leaves them lazy, and a lazy array can only be
evaluated in the thread that made it.

The fix: they are evaluated where they are made. It can be deleted when the host does so.

Upstream: not reported yet. On the CPU it shows from mlx 0.32 on.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import lazy_arrays, tiny_audio
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.models.gemma4.audio:AudioAttention.__init__"


def probe() -> Finding:
    try:
        from mlx_vlm.models.gemma4 import AudioConfig
        from mlx_vlm.models.gemma4.audio import AudioAttention
    except ImportError:
        raise NotApplicable("this mlx-vlm has no such audio tower") from None
    made = AudioAttention(AudioConfig.from_dict(tiny_audio.CONFIG))
    return lazy_arrays.finding(made._rel_pos._inv_timescales)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _evaluated)


def _evaluated(original):
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        mx.eval(self._rel_pos._inv_timescales)

    return __init__


PATCH = Patch(id="mlx_vlm.audio_timescales_thread", targets=(_TARGET,), apply=apply, probe=probe)
