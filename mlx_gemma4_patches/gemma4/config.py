"""What a Gemma 4 ``config.json`` says, read without a host."""

from __future__ import annotations

from typing import Any

MODEL_TYPES = ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")

_VOCABULARY = 262_144  # transformers' Gemma4TextConfig.vocab_size where a config leaves it out


def is_gemma4(config: Any) -> bool:
    """Whether ``config``, the content of a config.json, is that of a Gemma 4 model."""
    return isinstance(config, dict) and config.get("model_type") in MODEL_TYPES


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the text model: ``text_config`` where there is one, else ``config``."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def vocabulary_size(config: dict[str, Any]) -> int:
    """The number of token ids the text model can produce."""
    size = text_config(config).get("vocab_size")
    return size if type(size) is int and size > 0 else _VOCABULARY
