"""vllm-mlx's ``MLXMultimodalLM``, which serves images without continuous batching."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


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
