"""Machines without Metal."""

from __future__ import annotations

import mlx.core as mx


def stand_in() -> None:
    """Let hosts define kernels at import that only Metal runs, as mlx-vlm 0.6.2 and 0.6.3 do."""
    if not mx.metal.is_available():
        mx.fast.metal_kernel = lambda *args, **kwargs: None
