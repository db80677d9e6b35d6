"""vllm-mlx's ``MLXMultimodalLM``, which serves images without continuous batching."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any


@contextlib.contextmanager
def model(generate: Callable[..., Any], enable_cache: bool = False) -> Iterator[Any]:
    """Yields a Gemma 4 without weights that has ``generate`` in place of mlx-vlm's."""
    import mlx_vlm
    from vllm_mlx.models.mllm import MLXMultimodalLM

    made = MLXMultimodalLM("gemma-4", enable_cache=enable_cache)
    made.model = SimpleNamespace(
        config=SimpleNamespace(model_type="gemma4"),
        language_model=SimpleNamespace(make_cache=lambda: [object()]),
    )
    made.config = {}
    made.processor = SimpleNamespace(
        tokenizer=SimpleNamespace(encode=lambda text: [3]),
        apply_chat_template=lambda *args, **named: "hi",
    )
    made._loaded = True
    original = mlx_vlm.generate
    mlx_vlm.generate = generate
    try:
        yield made
    finally:
        mlx_vlm.generate = original


def answer(generate: Callable[..., Any], **how: Any) -> Any:
    """What a chat makes of ``generate`` in place of mlx-vlm's, without a model."""
    with model(generate) as made:
        return made.chat([{"role": "user", "content": "hi"}], **how)
