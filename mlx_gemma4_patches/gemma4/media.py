"""The pictures, films and sounds of a prompt, by which prompts of the same token ids differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

# what processors make of them; positions tell apart layouts of the same patches
_TENSORS = (
    "pixel_values",
    "image_position_ids",
    "cached_image_features",
    "pixel_values_videos",
    "video_position_ids",
    "cached_video_features",
    "input_features",
    "input_features_mask",
    "audio_features",
)


def digest(inputs: Mapping[str, Any]) -> bytes:
    """A hash of the media among a model's inputs, b"" where there are none.

    Each is an array, of mlx or NumPy and of any shape and type, or a list of such.
    """
    given = {name: inputs[name] for name in _TENSORS if inputs.get(name) is not None}
    if not given:
        return b""
    made = hashlib.sha256()
    for name, value in given.items():
        made.update(name.encode())
        _add(made, value)
    return made.digest()


def _add(made: Any, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        made.update(f"list of {len(value)}".encode())
        for part in value:
            _add(made, part)
        return
    array = mx.array(value)
    made.update(f"{array.dtype} {array.shape}".encode())
    made.update(memoryview(array.reshape(-1).view(mx.uint8)))
