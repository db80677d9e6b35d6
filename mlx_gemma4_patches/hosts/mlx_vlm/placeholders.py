"""What a Gemma 4 of mlx-vlm knows and its text model is not told."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import mlx.core as mx

from ...gemma4.placeholders import Placeholders
from ...surgery import Surgery

EMBED = "mlx_vlm.models.gemma4.gemma4:Model.get_input_embeddings"
_NOTE = "_mlx_gemma4_placeholders"
_MODULE = "mlx_vlm.models.gemma4.language"


# of the forward pass under way, where the text model is given embeddings alone
ids_of_pass: ContextVar[mx.array | None] = ContextVar("token ids", default=None)


def with_ids_at_hand(original):
    """``Model.__call__``, for ``surgery.wrap``."""

    def __call__(self, input_ids=None, *args, **kwargs):
        _note(self)
        before = ids_of_pass.set(input_ids)
        try:
            return original(self, input_ids, *args, **kwargs)
        finally:
            ids_of_pass.reset(before)

    return __call__


def learn_with_each_prompt(surgery: Surgery) -> None:
    """Have models note their placeholders when they embed a prompt, those built before us too."""

    def make(original):
        def get_input_embeddings(self, *args, **kwargs):
            _note(self)
            return original(self, *args, **kwargs)

        return get_input_embeddings

    surgery.wrap(EMBED, make)


def of(text_model: Any) -> Placeholders:
    """What is noted on ``text_model``, or Google's."""
    return getattr(text_model, _NOTE, Placeholders())


def text_model_of(model: Any) -> Any:
    """The text model of a Gemma 4 or of its language model, with a note; None for any other."""
    text_model = getattr(getattr(model, "language_model", model), "model", None)
    if type(text_model).__module__ != _MODULE:
        return None
    if hasattr(model, "language_model"):
        _note(model)
    return text_model


def has_images(text_model: Any, ids: mx.array) -> bool:
    """Whether there are images or videos in ``ids`` (B, L)."""
    return of(text_model).seen(ids).any().item()


def _note(model: Any) -> None:
    setattr(model.language_model.model, _NOTE, Placeholders.of(model.config))
