"""The generator of batches of this host's multimodal models."""

from __future__ import annotations

from typing import Any

from ...patch import NotApplicable


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
