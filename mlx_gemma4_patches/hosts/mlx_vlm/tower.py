"""How many patches the vision tower of E2B to 31B makes room for, before mlx-vlm 0.6.4."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


def patches(tower: Any, pixel_values: Any) -> int:
    """Of one picture of an array (B, 3, H, W); of a list 0, its pictures come one by one."""
    if isinstance(pixel_values, list):
        return 0
    height, width = pixel_values.shape[-2:]
    return (height // tower.patch_size) * (width // tower.patch_size)


@contextlib.contextmanager
def room_for(tower: Any, patches: int) -> Iterator[None]:
    """The tower as if it were made for so many patches, until the end of the block."""
    before = tower.max_patches, tower.default_output_length, tower.pooler.default_output_length
    length = patches // tower.pooling_kernel_size**2
    tower.max_patches = patches
    tower.default_output_length = tower.pooler.default_output_length = length
    try:
        yield
    finally:
        tower.max_patches, tower.default_output_length = before[:2]
        tower.pooler.default_output_length = before[2]
