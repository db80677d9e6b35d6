"""Which models, and servers of models, are Gemma 4."""

from __future__ import annotations

from typing import Any

from ...gemma4 import channels

_CHANNEL = "<|channel>"


def is_gemma4(part: Any) -> bool:
    """Whether a model of mlx-vlm, an ``MLXMultimodalLM`` or an engine is a Gemma 4.

    A model is known by its config, an engine by the id of the marker that begins thoughts.
    An ``MLXMultimodalLM`` that is not loaded yet is loaded, as its own methods do.
    """
    if getattr(part, "_loaded", None) is False and hasattr(part, "processor"):
        part.load()
    config = getattr(getattr(part, "model", part), "config", None)
    if str(getattr(config, "model_type", "")).startswith("gemma4"):
        return True
    tokenizer = getattr(part, "tokenizer", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    look_up = getattr(tokenizer, "convert_tokens_to_ids", None)
    return look_up is not None and look_up(_CHANNEL) == channels.OPENING_ID
