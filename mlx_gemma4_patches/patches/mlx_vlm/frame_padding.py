"""A video takes ten times as long as it has to, and ten times the memory.

What the user sees: a request with a video is not answered for minutes, as if it hung.

Why: before 0.6.4 the vision tower pads each frame, of 630 patches at most, to the 2520 of a
picture, and every patch attends to every other.

The fix: room for the patches that are there. The soft tokens stay the same. It can be deleted when
releases before 0.6.4 are no longer supported.
"""

from __future__ import annotations

import mlx.core as mx

from ...hosts.mlx_vlm import tiny, tower
from ...patch import Finding, Patch
from ...surgery import Surgery

_TOWER = "mlx_vlm.models.gemma4.vision:VisionModel.__call__"


def probe() -> Finding:
    seeing = tiny.model_for(12).vision_tower
    encoder, read = seeing.encoder, []

    def counting(patches, *args):
        read.append(patches.shape[1])
        return encoder(patches, *args)

    seeing.encoder = counting
    seeing(mx.zeros((1, 3, 2 * 48, 3 * 48)))
    return Finding(read != [54], f"a frame of 54 patches is read as {read[0]}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TOWER, _without_padding)


def _without_padding(original):
    def __call__(self, pixel_values, *args, **kwargs):
        needed = tower.patches(self, pixel_values)
        side = self.patch_size * self.pooling_kernel_size  # of a soft token
        if not 0 < needed < self.max_patches or any(n % side for n in pixel_values.shape[-2:]):
            return original(self, pixel_values, *args, **kwargs)
        with tower.room_for(self, needed):
            return original(self, pixel_values, *args, **kwargs)

    return __call__


PATCH = Patch(id="mlx_vlm.frame_padding", targets=(_TOWER,), apply=apply, probe=probe)
