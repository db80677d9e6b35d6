"""Which models of mlx-lm are Gemma 4."""

from __future__ import annotations

from typing import Any

_MODULES = ("mlx_lm.models.gemma4", "mlx_lm.models.gemma4_text")


def is_gemma4(model: Any) -> bool:
    """Whether ``model`` is one of the host's Gemma 4 classes, or a view that says so."""
    return any(kind.__module__ in _MODULES for kind in model.__class__.__mro__)
