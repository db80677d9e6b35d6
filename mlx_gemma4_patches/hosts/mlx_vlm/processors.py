"""Which processors of mlx-vlm are Gemma 4's."""

from __future__ import annotations

from typing import Any


def is_gemma4(processor: Any) -> bool:
    """Whether texts and media become inputs of a Gemma 4 here, the 12B among them."""
    return type(processor).__module__.startswith("mlx_vlm.models.gemma4")


def is_unified(processor: Any) -> bool:
    """Whether a Gemma 4's processor is the 12B's, which hears without an audio tower."""
    return type(processor).__module__.startswith("mlx_vlm.models.gemma4_unified")
