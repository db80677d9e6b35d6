"""The generator of batches of this host's multimodal models."""

from __future__ import annotations

from typing import Any

from ...patch import NotApplicable


def is_gemma4(model: Any) -> bool:
    """Whether a model of mlx-vlm is a Gemma 4, by its config."""
    config = getattr(model, "config", None)
    return str(getattr(config, "model_type", "")).startswith("gemma4")


def generator(model: Any, **named: Any) -> Any:
    """A new ``MLLMBatchGenerator``, to be closed.

    Raises NotApplicable where it needs Metal, and there is none.
    """
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator

    try:
        return MLLMBatchGenerator(model, **named)
    except RuntimeError as error:
        if "Metal" not in str(error):
            raise
        raise NotApplicable("beside this mlx-vlm there are no batches without Metal") from None
