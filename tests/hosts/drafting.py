"""Plain and speculative greedy decoding with mlx-lm, for tests that compare them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def plain(model: Any, prompt: list[int], limit: int, **how: Any) -> list[int]:
    """What the model says alone."""
    from mlx_lm.generate import generate_step

    return [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=limit, **how)]


def drafted(model: Any, draft: Any, prompt: list[int], limit: int, **how: Any) -> list[int]:
    """What it says with the help of a draft model."""
    from mlx_lm.generate import speculative_generate_step

    steps = speculative_generate_step(mx.array(prompt), model, draft, max_tokens=limit, **how)
    return [token for token, *_ in steps]


def caches(*models: Any) -> list[Any]:
    """Empty caches of all the models in one list, as the server passes them."""
    from mlx_lm.models.cache import make_prompt_cache

    return [cache for model in models for cache in make_prompt_cache(model)]
