"""What a server of this host serves."""

from __future__ import annotations

from typing import Any

from ...gemma4 import channels

_CHANNEL = "<|channel>"


def is_gemma4(engine: Any) -> bool:
    """Whether an engine's model is a Gemma 4: by the id of the marker that begins thoughts."""
    tokenizer = getattr(engine, "tokenizer", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    look_up = getattr(tokenizer, "convert_tokens_to_ids", None)
    return look_up is not None and look_up(_CHANNEL) == channels.OPENING_ID
