"""mlx-lm: reverse lookup, a draft model, the KV cache, tool calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..settings import log
from .comparing import compare, stock_and_patched

TABLE = "what single patches change"


def run() -> Iterator[dict[str, Any]]:
    """One row a figure, as each is measured."""
    yield from reverse_lookup()
    yield speculation()
    yield kv_cache()
    yield from tool_calls()


def reverse_lookup(
    vocabulary: int = 65536, hidden: int = 256, tokens: int = 512, rounds: int = 3
) -> Iterator[dict[str, Any]]:
    """Token ids from bfloat16 embeddings: the first lookup on a table, later ones, and memory."""
    import mlx.core as mx
    from mlx_lm.models.gemma4_text import Gemma4TextModel, ModelArgs

    model = Gemma4TextModel(
        ModelArgs(
            hidden_size=hidden,
            vocab_size=vocabulary,
            vocab_size_per_layer_input=vocabulary,
            hidden_size_per_layer_input=8,
            num_hidden_layers=1,
            num_kv_shared_layers=0,
        )
    )
    model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    ids = mx.random.randint(0, vocabulary, (1, tokens), key=mx.random.key(0))
    embeddings = model.embed_tokens(ids)
    mx.eval(embeddings)

    def look_up(unit: str, is_first: bool) -> float:
        if is_first:
            model.embed_tokens.weight = mx.array(model.embed_tokens.weight)
            mx.eval(model.embed_tokens.weight)
        base = mx.get_active_memory()
        mx.reset_peak_memory()
        start = time.perf_counter()
        mx.eval(model._get_per_layer_inputs(None, embeddings))
        seconds = time.perf_counter() - start
        return seconds if unit == "ms" else (mx.get_peak_memory() - base) / 1e6

    table = f"{vocabulary} x {hidden}, {tokens} tokens"
    figures = (
        (f"first reverse lookup, {table}", "ms", True, rounds),
        (f"reverse lookup, {table}", "ms", False, rounds),
        ("memory of the first lookup, over the model", "MB", True, 1),
        ("memory of a lookup, over the model", "MB", False, 1),
    )
    for what, unit, is_first, count in figures:
        measures = stock_and_patched(partial(look_up, unit, is_first))
        yield compare(TABLE, what, unit, *measures, count)


def speculation(tokens: int = 64) -> dict[str, Any]:
    """Tokens for each step of the target past the window, alone and with a draft that agrees."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step, speculative_generate_step

    from ..gemma4 import tiny
    from ..hosts.mlx_lm.tiny import text_model

    prompt = mx.array(tiny.prompt(40))

    def per_step(generate: Callable, *draft: Any) -> float:
        target = _Counted(text_model("e2b"))
        steps = generate(prompt, target, *draft, max_tokens=tokens)
        next(steps)
        before = target.calls
        return len(list(steps)) / (target.calls - before)

    def with_draft() -> float:
        return per_step(speculative_generate_step, text_model("e2b"))

    alone = partial(per_step, generate_step)
    columns = ("alone", "with a draft that agrees")
    return compare(TABLE, "tokens a target step", "", alone, with_draft, 1, columns)


class _Counted:
    """A model whose calls are counted."""

    def __init__(self, model: Any):
        self._model = model
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def kv_cache(tokens: int = 4096) -> dict[str, Any]:
    """The KV cache of a long prompt, plain and with kv_bits=8."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache

    from ..gemma4 import tiny
    from ..hosts.mlx_lm.tiny import text_model

    model = text_model("dense")
    model.set_dtype(mx.bfloat16)

    def megabytes(**how: Any) -> float:
        cache = make_prompt_cache(model)
        next(generate_step(mx.array(tiny.prompt(tokens)), model, prompt_cache=cache, **how))
        return sum(layer.nbytes for layer in cache) / 1e6

    quantized = partial(megabytes, kv_bits=8, quantized_kv_start=0)
    what, columns = f"KV cache of {tokens} tokens", ("bfloat16", "kv_bits=8")
    said = log.disabled
    log.disabled = True  # the line is for those who asked for kv_bits
    try:
        return compare(TABLE, what, "MB", megabytes, quantized, 1, columns)
    finally:
        log.disabled = said


def tool_calls(rounds: int = 5) -> Iterator[dict[str, Any]]:
    """Parsing a tool call of 20 kB, and with the patches one of 1 MB and one of 2 MB."""
    from mlx_lm.tool_parsers import gemma4

    item = '{name:<|"|>a name<|"|>,count:12,tags:[<|"|>x<|"|>,<|"|>y<|"|>]},'

    def seconds(size: int) -> float:
        text = "call:f{items:[" + (item * (size // len(item)))[:-1] + "]}"
        start = time.perf_counter()
        gemma4.parse_tool_call(text)
        return time.perf_counter() - start

    small = stock_and_patched(partial(seconds, 20_000))
    large = partial(seconds, 1_000_000), partial(seconds, 2_000_000)
    yield compare(TABLE, "tool call of 20 kB", "ms", *small, rounds)
    yield compare(TABLE, "tool call, patched", "ms", *large, rounds, ("1 MB", "2 MB"))
