"""What a Gemma 4 of mlx-vlm notes on its text model, whose own config does not say it."""

from __future__ import annotations

from typing import Any

from ...gemma4.placeholders import Placeholders

_NOTE = "_mlx_gemma4_placeholders"


def note(model: Any) -> None:
    """Note the placeholders in ``model``'s config; before each prompt, as it costs nothing."""
    setattr(model.language_model.model, _NOTE, Placeholders.of(model.config))


def placeholders(text_model: Any) -> Placeholders:
    """What is noted on ``text_model``, or Google's."""
    return getattr(text_model, _NOTE, Placeholders())
