"""How mlx-lm reads the prompts of ``cases``, by the functions that its users call."""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx

from ..gemma4 import tiny
from .cases import CHUNK, LENGTH, QUESTION, Case
from .taps import Recorder, tap


def model(case: Case) -> Any:
    from ..hosts.mlx_lm.tiny import text_model

    return text_model(case.shape)


def read(made: Any, case: Case, ids: list[int]) -> Recorder:
    """Have ``made``, a ``model``, read ``ids``."""
    host = importlib.import_module("mlx_lm.generate")  # also the name of a function there
    if case.way == "batched":
        return _batched(host, made, ids)
    how: dict[str, Any] = {"prefill_step_size": CHUNK} if case.way == "chunked" else {}
    if case.way == "cached":
        from mlx_lm.models.cache import make_prompt_cache

        how["prompt_cache"] = make_prompt_cache(made)
        known, ids = ids[: LENGTH - QUESTION], ids[LENGTH - QUESTION :]
        list(host.generate_step(mx.array(known), made, max_tokens=0, **how))
    recorder = tap(made)
    list(host.generate_step(mx.array(ids), made, max_tokens=0, **how))
    return recorder


def _batched(host: Any, made: Any, ids: list[int]) -> Recorder:
    """Between a short prompt and one of medium length."""
    recorder = tap(made)
    prompts = [tiny.prompt(5, seed=1), ids, tiny.prompt(20, seed=2)]
    sizes = {"prefill_batch_size": len(prompts), "completion_batch_size": len(prompts)}
    batch = host.BatchGenerator(made, max_tokens=1, **sizes)
    batch.insert(prompts)
    left = len(prompts)
    while left:
        said = batch.next()
        left -= len(said[-1] if isinstance(said, tuple) else said)
    return recorder
