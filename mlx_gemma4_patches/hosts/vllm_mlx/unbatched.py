"""vllm-mlx's ``MLXMultimodalLM``, which serves images without continuous batching."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from . import batches


def is_gemma4(language_model: Any) -> bool:
    """Whether an ``MLXMultimodalLM`` is a Gemma 4; loads it if need be, as its methods do."""
    if not language_model._loaded:
        language_model.load()
    return batches.is_gemma4(language_model.model)


def answer(generate: Callable[..., Any], **how: Any) -> Any:
    """What a chat makes of ``generate`` in place of mlx-vlm's, without a model."""
    import mlx_vlm
    from vllm_mlx.models.mllm import MLXMultimodalLM

    made = MLXMultimodalLM("gemma-4", enable_cache=False)
    made.model, made.config = SimpleNamespace(config=SimpleNamespace(model_type="gemma4")), {}
    made.processor = SimpleNamespace(
        tokenizer=SimpleNamespace(encode=lambda text: [3]),
        apply_chat_template=lambda *args, **named: "hi",
    )
    made._loaded = True
    original = mlx_vlm.generate
    mlx_vlm.generate = generate
    try:
        return made.chat([{"role": "user", "content": "hi"}], **how)
    finally:
        mlx_vlm.generate = original
