"""mlx-vlm: prompts with images, and the second turn of a chat."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from .comparing import compare, stock_and_patched
from .mlx_lm import TABLE


def run() -> Iterator[dict[str, Any]]:
    """A prompt with an image, in ms a token and in memory; the second turn of a chat.

    The tiny model attends to images as 26B and 31B do.
    """
    import mlx.core as mx

    from ..gemma4 import tiny
    from ..hosts.mlx_vlm import tiny as tiny_vlm

    host = importlib.import_module("mlx_vlm.generate")  # also the name of a function there
    model = tiny_vlm.model("dense")
    config = model.config
    pixels = mx.array(tiny.image(16, 16))[None]  # 256 soft tokens
    picture = [config.boi_token_id, *[config.image_token_id] * 256, config.eoi_token_id]
    prompt = [*tiny.prompt(128), *picture, *tiny.prompt(126)]

    def steps(ids: list[int], count: int) -> Iterator:
        seen = pixels if config.image_token_id in ids else None
        row = mx.array([ids])
        return host.generate_step(row, model, seen, None, max_tokens=count, temperature=0.0)

    def memory() -> float:
        mx.clear_cache()
        base = mx.get_active_memory()
        mx.reset_peak_memory()
        next(steps(prompt, 1))
        return (mx.get_peak_memory() - base) / 1e6

    def seconds_a_token() -> float:
        start = time.perf_counter()
        next(steps(prompt, 1))
        return (time.perf_counter() - start) / len(prompt)

    prefill, peak = stock_and_patched(seconds_a_token), stock_and_patched(memory)
    yield compare(TABLE, "a token of a prompt with an image, mlx-vlm", "ms", *prefill, 31)
    yield compare(TABLE, "memory of a prompt with an image, mlx-vlm", "MB", *peak, 1)
    if hasattr(host, "PromptCacheState"):
        second_turn = partial(_second_turn, host, model, tiny_vlm.processor())
        turns = partial(second_turn, None), lambda: second_turn(host.PromptCacheState())
        columns = ("afresh", "with the first one's cache")
        yield compare(TABLE, "second turn, mlx-vlm", "ms", *turns, 7, columns)


def _second_turn(host: Any, model: Any, processor: Any, state: Any) -> float:
    """Seconds to the first token of a chat's second turn; ``state`` has seen the first, if any."""
    import mlx.core as mx

    from ..gemma4 import tiny

    def answer(ids: list[int], count: int) -> list[int]:
        said = host.stream_generate(
            model,
            processor,
            "",
            input_ids=mx.array([ids]),
            max_tokens=count,
            temperature=0.0,
            prompt_cache_state=state,
        )
        return [token.token for token in said]

    first = tiny.prompt(2048)
    ids = [*first, *answer(first, 4)[:4], *tiny.prompt(16, seed=1)]
    start = time.perf_counter()
    answer(ids, 1)
    return time.perf_counter() - start
