"""mlx-vlm: text and image prompts, and the second turn of a chat."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from .comparing import compare, prefill_and_decode, seconds_a_token, stock_and_patched


def run(size: str) -> Iterator[dict[str, Any]]:
    """Text and image prompts, in ms a token; the memory they take; the second turn of a chat.

    The random model attends to images as 26B and 31B do; at ``e2b`` it has the size of E2B.
    """
    import mlx.core as mx

    from ..gemma4 import tiny
    from ..hosts.mlx_vlm import tiny as tiny_vlm

    host = importlib.import_module("mlx_vlm.generate")  # also the name of a function there
    model = tiny_vlm.model("dense") if size == "tiny" else _e2b_with_images()
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

    what = f"mlx-vlm, {size}"
    with_image = partial(seconds_a_token, steps, prompt)
    yield from prefill_and_decode(what, steps)
    yield compare(f"prefill with an image, {what}", "ms", *stock_and_patched(with_image), 31)
    yield compare(f"memory with an image, {what}", "MB", *stock_and_patched(memory), 1)
    if hasattr(host, "PromptCacheState"):
        second_turn = partial(_second_turn, host, model, tiny_vlm.processor())
        title = f"second turn, afresh and with the first one's cache, {what}"
        turns = partial(second_turn, None), lambda: second_turn(host.PromptCacheState())
        yield compare(title, "ms", *turns, 7)


def _e2b_with_images() -> Any:
    import mlx.core as mx
    from mlx_vlm.models import gemma4

    config = gemma4.ModelConfig()  # the defaults are E2B's
    config.text_config.use_bidirectional_attention = "vision"
    model = gemma4.Model(config)
    model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    return model


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
