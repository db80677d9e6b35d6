"""Where the images are in what mlx-vlm's Gemma 4 is given."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ...gemma4 import vision_mask

_NOTE = "_mlx_gemma4_media"


def note_media(model: Any) -> None:
    """Leave the placeholder ids of ``model``'s config where its text model finds them."""
    config = model.config
    ids = (getattr(config, f"{media}_token_id", None) for media in ("image", "video"))
    setattr(model.language_model.model, _NOTE, frozenset(i for i in ids if i is not None))


def soft_tokens(text_model: Any, ids: mx.array) -> mx.array | None:
    """bool (B, L), where ``ids`` (B, L) stand for images; None where none does."""
    return vision_mask.soft_tokens(ids, getattr(text_model, _NOTE, vision_mask.MEDIA))
