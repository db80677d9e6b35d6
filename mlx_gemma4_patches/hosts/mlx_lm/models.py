"""Which models of mlx-lm are Gemma 4, and which are its assistants."""

from __future__ import annotations

from typing import Any

from ...gemma4 import channels, tiny_assistant

_MODULES = ("mlx_lm.models.gemma4", "mlx_lm.models.gemma4_text")


def is_gemma4(part: Any) -> bool:
    """Whether a model or a ``TokenizerWrapper`` is a Gemma 4's.

    A model is known by its class, or the class that a view of it claims; a tokenizer by the marker
    that begins thoughts.
    """
    if any(kind.__module__ in _MODULES for kind in part.__class__.__mro__):
        return True
    return getattr(part, "think_start", None) == channels.THOUGHT


def is_assistant(part: Any) -> bool:
    """Whether a draft model is one that Google publishes for a Gemma 4."""
    return getattr(part, "model_type", None) in tiny_assistant.TYPES
