"""The vision tower of mlx-vlm 0.4 cannot cope with its padding, nor with images of two sizes.

What the user sees: garbage after any image on the CPU, as its soft tokens are NaN; on 0.4.3 a first
soft token that has nothing to do with the image; an error at two images of different size.

Why: images are padded to one number of patches, and the rows of the padding may attend to nothing:
their softmax is NaN, which reaches everything else in the next layer. 0.4.3 then adds the padding
to the first soft token, where later releases clear it. Images of different size come as a list,
which the tower takes for parts of one array.

The fix: minus 10000 in place of minus infinity and cleared padding, as in later releases, and
images of different size one by one. It can be deleted when no supported release is older than
0.5.0.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny as gemma4_tiny
from ...hosts.mlx_vlm import tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_VISION = "mlx_vlm.models.gemma4.vision"
_LAYERS = f"{_VISION}:VisionTransformerModel.__call__"
_TOWER = f"{_VISION}:VisionModel.__call__"


def probe() -> Finding:
    tower = tiny.model("dense").vision_tower
    wide, tall = (mx.array(gemma4_tiny.image(*size)) for size in ((1, 2), (2, 1)))

    def soft_tokens(pixels, room: int) -> mx.array:
        tower.default_output_length = tower.pooler.default_output_length = room
        tower.max_patches = 9 * room
        return tower(pixels)

    exact, padded = soft_tokens(wide[None], 2), soft_tokens(wide[None], 4)
    error = mx.abs(exact - padded).max().item()
    try:
        count = soft_tokens([wide, tall], 4).shape[1]
    except Exception as problem:  # whatever the release has for it
        failed = type(problem).__name__
        measured = f"padding changes soft tokens by {error}; two sizes together: {failed}"
        return Finding(True, measured)
    wrong = not error < 1e-3 or count != 4  # NaN is not less
    measured = (
        f"padding changes soft tokens by {error:.0e}; two sizes together: {count} of 4 tokens"
    )
    return Finding(wrong, measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LAYERS, _layers)
    surgery.wrap(_TOWER, _tower)


def _layers(original):
    def __call__(self, hidden_states, positions, mask):
        made = original(self, hidden_states, positions, mx.maximum(mask, -1e4).astype(mask.dtype))
        return mx.where(positions[..., :1] < 0, 0, made).astype(made.dtype)  # padding is at -1

    return __call__


def _tower(original):
    def __call__(self, pixel_values):
        if not isinstance(pixel_values, list):
            return original(self, pixel_values)
        images = [mx.array(image) for image in pixel_values]
        images = [image if image.ndim == 4 else image[None] for image in images]
        if len({image.shape[1:] for image in images}) == 1:
            return original(self, images)
        return mx.concatenate([original(self, image) for image in images], axis=1)

    return __call__


PATCH = Patch(
    id="mlx_vlm.vision_tower_nan",
    targets=(_LAYERS, _TOWER),
    apply=apply,
    probe=probe,
)
