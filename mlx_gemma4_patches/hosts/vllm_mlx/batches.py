"""The generator of batches of this host's multimodal models, and the scheduler of text models."""

from __future__ import annotations

from typing import Any

from ...patch import NotApplicable
from ..mlx_lm.tiny import text_model


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


def scheduler(**config: Any) -> Any:
    """A new ``Scheduler`` of a text model with its ``BatchGenerator``.

    Raises NotApplicable where none of it can be had.
    """
    try:
        from mlx_lm.models import gemma4  # noqa: F401
        from vllm_mlx.scheduler import Scheduler, SchedulerConfig
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from vllm_mlx.request import SamplingParams

    made = Scheduler(text_model("dense"), _Tokenizer(), SchedulerConfig(**config))
    try:
        made._ensure_batch_generator(SamplingParams(max_tokens=1))
    except TypeError as error:  # it hands this mlx-lm an argument that it does not know
        raise NotApplicable(f"beside this mlx-lm it batches no text: {error}") from None
    if made.memory_aware_cache is None or not hasattr(made.batch_generator, "insert_segments"):
        raise NotApplicable("beside this mlx-lm it batches no text")
    return made


class _Tokenizer:
    eos_token_id = 1
    eos_token_ids = (1,)

    def decode(self, ids: list[int]) -> str:
        return ""
