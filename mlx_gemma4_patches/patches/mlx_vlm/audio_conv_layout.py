"""Converted E2B and E4B do not load: "Expected shape (128, 3, 3, 1) but received shape ...".

What the user sees: that error, with mlx-vlm 0.6.4 and a checkpoint that a host converted; before,
with one whose files do not say that they are.

Why: up to 0.6.4 the host turns the convolutions of the audio tower into its layout once more where
they are in it already, and 0.6.4 does so with every checkpoint.

The fix: such tensors are turned back first. It can be deleted when releases before 0.6.5 are no
longer supported.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny_audio
from ...hosts.mlx_vlm import tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_SANITIZE = "mlx_vlm.models.gemma4.gemma4:Model.sanitize"
_CONVOLUTIONS = (".layer0.conv.weight", ".layer1.conv.weight", ".depthwise_conv1d.weight")


def probe() -> Finding:
    model = tiny.hearing_model()
    hidden = model.config.text_config.hidden_size
    once = model.sanitize(tiny_audio.weights(hidden))
    twice = model.sanitize(once)
    turned = [name for name, value in once.items() if twice[name].shape != value.shape]
    return Finding(bool(turned), f"{len(turned)} tensors in the host's layout are turned again")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_SANITIZE, _sanitize)


def _sanitize(original):
    def sanitize(self, weights):
        if self.audio_tower is None:
            return original(self, weights)
        return original(self, {name: _as_saved(name, value) for name, value in weights.items()})

    return sanitize


def _as_saved(name: str, value: mx.array) -> mx.array:
    """A convolution's weights (out, in, ...) where they are (out, ..., in), all others as is.

    One channel enters the first and each of the last kind, 128 the second, whose kernel is 3 x 3.
    """
    if "audio_tower" not in name or not name.endswith(_CONVOLUTIONS):
        return value
    if name.endswith(".layer1.conv.weight"):
        is_turned = value.shape[-1] > value.shape[1]
    else:
        is_turned = value.shape[-1] == 1
    return mx.moveaxis(value, -1, 1) if is_turned else value


PATCH = Patch(id="mlx_vlm.audio_conv_layout", targets=(_SANITIZE,), apply=apply, probe=probe)
