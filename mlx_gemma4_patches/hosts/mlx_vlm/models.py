"""Which models and processors of mlx-vlm are Gemma 4's."""

from __future__ import annotations

from typing import Any

from ...gemma4.config import MODEL_TYPES


def is_gemma4(part: Any) -> bool:
    """Whether a processor, a model or its language model is a Gemma 4's, the 12B among them."""
    return type(part).__module__.startswith("mlx_vlm.models.gemma4")


def is_unified(processor: Any) -> bool:
    """Whether a Gemma 4's processor is the 12B's, which hears without an audio tower."""
    return type(processor).__module__.startswith("mlx_vlm.models.gemma4_unified")


def says_gemma4(model: Any) -> bool:
    """Whether the config of a model, or of what stands for one, is a Gemma 4's."""
    return getattr(getattr(model, "config", None), "model_type", None) in MODEL_TYPES


def takes_media(config: Any) -> bool:
    """Whether a model's config, the host's or a dictionary, is that of a Gemma 4 with media."""
    model_type = config["model_type"] if isinstance(config, dict) else config.model_type
    return model_type in ("gemma4", "gemma4_unified")
