"""The prefix cache answers a question about two images with what it knows of two others.

What the user sees: with the prefix cache (``APC_ENABLED=1``, ``apc_manager=``), of two requests
with the same text and several images of different sizes, the second is answered as the first.

Why: the key of a prompt has a hash of its pixels. Images of different sizes are a list, which
cannot be hashed as one array, nor can bfloat16; what is hashed in their place is the image's name,
or, where there is none as in the server since 0.6.13, nothing.

The fix: such pixels are hashed one by one. It can be deleted when mlx-vlm hashes lists.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ...hosts.mlx_vlm.media_key import media_key
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_HASH = "mlx_vlm.apc:hash_image_payload"


def probe() -> Finding:
    try:
        from mlx_vlm import apc
    except ImportError:
        raise NotApplicable("this mlx-vlm has no prefix cache") from None
    one, other = mx.zeros((2, 3, 48, 48)), mx.ones((2, 3, 48, 48))
    cases = {
        "of different sizes": lambda values: [values[0], values[1, :, :16]],
        "in bfloat16": lambda values: values.astype(mx.bfloat16),
    }
    alike = [
        name
        for name, made in cases.items()
        if apc.hash_image_payload(made(one)) == apc.hash_image_payload(made(other))
    ]
    if alike:
        return Finding(True, f"different images have the same cache key: those {', '.join(alike)}")
    return Finding(False, "different images have different cache keys")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_HASH, _hash_image_payload)


def _hash_image_payload(original):
    def hash_image_payload(pixel_values=None, image_ref=None):
        if not _fits_an_array(pixel_values):
            return media_key({"pixel_values": pixel_values})
        return original(pixel_values=pixel_values, image_ref=image_ref)

    return hash_image_payload


def _fits_an_array(values: Any) -> bool:
    """Whether the host can hash ``values``, or there is nothing to hash."""
    if isinstance(values, mx.array):
        return values.dtype != mx.bfloat16
    return not isinstance(values, (list, tuple))


PATCH = Patch(id="mlx_vlm.apc_images", targets=(_HASH,), apply=apply, probe=probe)
