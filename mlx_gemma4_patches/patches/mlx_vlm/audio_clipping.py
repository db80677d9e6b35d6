"""Gemma 4 whose audio tower does not clip does not load: "Missing 80 parameters".

What the user sees: ValueError at loading, for a checkpoint with ``use_clipped_linears: false`` in
its ``audio_config``, as transformers saves it.

Why: the audio tower makes the bounds of clipping whatever its config says, and such a checkpoint
has none. The vision tower asks its config.

The fix: the tower has no bounds where the config says so. It can be deleted when mlx-vlm's audio
tower asks.
"""

from __future__ import annotations

from mlx.utils import tree_flatten

from ...gemma4 import tiny_audio
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULE = "mlx_vlm.models.gemma4.audio"
_INIT = f"{_MODULE}:AudioEncoder.__init__"
_LINEAR = f"{_MODULE}:ClippableLinear.__init__"
_BOUNDS = ("input_min", "input_max", "output_min", "output_max")


def probe() -> Finding:
    from mlx_vlm.models.gemma4.audio import AudioEncoder
    from mlx_vlm.models.gemma4.config import AudioConfig

    config = AudioConfig.from_dict({**tiny_audio.CONFIG, "use_clipped_linears": False})
    names = [name for name, _ in tree_flatten(AudioEncoder(config).parameters())]
    bounds = [name for name in names if name.endswith(_BOUNDS)]
    return Finding(bool(bounds), f"a tower that does not clip has {len(bounds)} bounds")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_INIT, _without_bounds)


def _without_bounds(original):
    def __init__(self, config, *args, **kwargs):
        original(self, config, *args, **kwargs)
        if getattr(config, "use_clipped_linears", True):
            return
        for part in self.modules():
            if getattr(part, "use_clipping", False):
                part.use_clipping = False
                for bound in _BOUNDS:
                    del part[bound]

    return __init__


PATCH = Patch(id="mlx_vlm.audio_clipping", targets=(_INIT, _LINEAR), apply=apply, probe=probe)
