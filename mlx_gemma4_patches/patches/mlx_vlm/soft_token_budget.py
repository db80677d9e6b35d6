"""max_soft_tokens of 560 and 1120 ends in "Shapes cannot be broadcast".

What the user sees: an error for every picture as soon as more than 280 soft tokens are asked for.

Why: up to 0.6.3 the vision tower cuts a picture's patches at as many as 280 soft tokens need, but
not its positions.

The fix: for a larger picture it makes room for all of its patches. It can be deleted when releases
before 0.6.4 are no longer supported.
"""

from __future__ import annotations

import mlx.core as mx

from ...hosts.mlx_vlm import tiny, tower
from ...patch import Finding, Patch
from ...surgery import Surgery

_TOWER = "mlx_vlm.models.gemma4.vision:VisionModel.__call__"


def probe() -> Finding:
    seeing = tiny.model_for(6).vision_tower
    try:
        rows = seeing(mx.zeros((1, 3, 3 * 48, 4 * 48))).shape[1]
    except ValueError as error:
        return Finding(True, f"12 soft tokens where 6 are usual: {error}")
    return Finding(rows != 12, f"12 soft tokens where 6 are usual: {rows} rows")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TOWER, _with_room)


def _with_room(original):
    def __call__(self, pixel_values, *args, **kwargs):
        needed = tower.patches(self, pixel_values)
        if needed <= self.max_patches:
            return original(self, pixel_values, *args, **kwargs)
        with tower.room_for(self, needed):
            return original(self, pixel_values, *args, **kwargs)

    return __call__


PATCH = Patch(id="mlx_vlm.soft_token_budget", targets=(_TOWER,), apply=apply, probe=probe)
