"""What the patches cost and save: stock and patched in turn, in one run.

Each figure is a median over rounds; the order within a round alternates. A ratio is the median of
the rounds' ratios, so that a machine that slows down on the way does not show in it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from . import activate, engine, status

# driven by hand, site can be made to leave out our .pth or .start file
_START_UP = """
import site
add = site.addpackage
site.addpackage = lambda folder, name, *rest: (
    None if {skip!r} and name.startswith({skip!r}) else add(folder, name, *rest)
)
site.main()
"""
_IMPORT = """
import time, mlx_gemma4_patches
mlx_gemma4_patches.activate()
start = time.perf_counter()
import mlx_lm.generate
print(time.perf_counter() - start)
"""
_LOOKUPS = {"tiny": (65536, 256, 512), "e2b": (262144, 1536, 2048)}  # vocabulary, hidden, tokens


def run(size: str) -> list[dict[str, Any]]:
    """Measure everything that this installation has.

    Args:
        size: ``tiny`` runs on any CPU in about a minute; ``e2b`` needs a GPU with 30 GB.

    Returns:
        One row a figure: ``what``, ``stock``, ``patched``, ``ratio`` (patched : stock), ``unit``.

    Raises:
        RuntimeError: a host is installed, but the patches are switched off or failed to start.
    """
    rows = start_up()
    if importlib.util.find_spec("mlx_lm"):
        rows.append(import_host())
        rows += reverse_lookup(*_LOOKUPS[size])
        rows += generation(size)
        rows += [speculation(), kv_cache(), *tool_calls()]
    if importlib.util.find_spec("mlx_vlm"):
        rows += pictures(size)
    return rows


def start_up(rounds: int = 100) -> list[dict[str, Any]]:
    """Start of an interpreter that imports no host, in ms: activation left out and done."""

    def seconds(skip: str, switch: str) -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _START_UP.format(skip=skip)],
            env={**os.environ, "MLX_GEMMA4_PATCHES": switch},
            check=True,
        )
        return time.perf_counter() - start

    def without() -> float:
        return seconds("mlx_gemma4_patches_activate", "1")

    return [
        _compare("start-up, no host imported", "ms", without, lambda: seconds("", "1"), rounds),
        _compare("start-up, switched off", "ms", without, lambda: seconds("", "0"), rounds),
    ]


def import_host(rounds: int = 7) -> dict[str, Any]:
    """``import mlx_lm.generate`` in a fresh interpreter, in ms."""

    # as pip leaves a package: without this, a checkout's modules are compiled each time
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def seconds(switch: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT],
            env={**environ, "MLX_GEMMA4_PATCHES": switch},
            capture_output=True,
            check=True,
        )
        return float(done.stdout)

    return _compare(
        "import mlx_lm.generate", "ms", lambda: seconds("0"), lambda: seconds("1"), rounds
    )


def reverse_lookup(
    vocabulary: int, hidden: int, tokens: int, rounds: int = 3
) -> list[dict[str, Any]]:
    """Token ids from bfloat16 embeddings: the first lookup on a table, later ones, and memory."""
    activate()
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
    return [
        _compare(what, unit, *_stock_and_patched(partial(look_up, unit, is_first)), count)
        for what, unit, is_first, count in figures
    ]


def generation(size: str) -> list[dict[str, Any]]:
    """mlx-lm: prefill and greedy decode of a random E2B model, in ms a token."""
    activate()
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models import gemma4_text

    from .hosts.mlx_lm.tiny import text_model

    if size == "tiny":
        model = text_model("e2b")
    else:
        model = gemma4_text.Model(gemma4_text.ModelArgs())  # the defaults are E2B's
        model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())

    def steps(ids: list[int], count: int) -> Iterator:
        return generate_step(mx.array(ids), model, max_tokens=count)

    return _prefill_and_decode(f"mlx-lm, {size}", steps)


def pictures(size: str) -> list[dict[str, Any]]:
    """mlx-vlm: text and image prompts, in ms a token; their memory; a prompt's second turn.

    The random model attends to images as 26B and 31B do; at ``e2b`` it has the size of E2B.
    """
    activate()
    import mlx.core as mx

    from .gemma4 import tiny
    from .hosts.mlx_vlm import tiny as tiny_vlm

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
    with_image = partial(_seconds_a_token, steps, prompt)
    rows = [
        *_prefill_and_decode(what, steps),
        _compare(f"prefill with an image, {what}", "ms", *_stock_and_patched(with_image), 31),
        _compare(f"memory with an image, {what}", "MB", *_stock_and_patched(memory), 1),
    ]
    if hasattr(host, "PromptCacheState"):
        second_turn = partial(_second_turn, host, model, tiny_vlm.processor())
        title = f"second turn, afresh and with the first one's cache, {what}"
        turns = partial(second_turn, None), lambda: second_turn(host.PromptCacheState())
        rows.append(_compare(title, "ms", *turns, 7))
    return rows


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

    from .gemma4 import tiny

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


def _prefill_and_decode(what: str, steps: Callable[[list[int], int], Iterator]) -> list[dict]:
    """``steps`` is given token ids and a number of tokens, which it yields one by one."""
    from .gemma4 import tiny

    def decode(count: int = 32) -> float:
        said = steps(tiny.prompt(32), count + 1)
        next(said)  # the prompt
        start = time.perf_counter()
        for _ in said:
            pass
        return (time.perf_counter() - start) / count

    prefill = partial(_seconds_a_token, steps, tiny.prompt(512))
    return [  # short rounds, and many
        _compare(f"prefill, {what}", "ms", *_stock_and_patched(prefill), 31),
        _compare(f"decode, {what}", "ms", *_stock_and_patched(decode), 31),
    ]


def _seconds_a_token(steps: Callable[[list[int], int], Iterator], ids: list[int]) -> float:
    start = time.perf_counter()
    next(steps(ids, 1))
    return (time.perf_counter() - start) / len(ids)


def speculation(tokens: int = 64) -> dict[str, Any]:
    """Tokens for each step of the target past the window, alone and with a draft that agrees."""
    activate()
    import mlx.core as mx
    from mlx_lm.generate import generate_step, speculative_generate_step

    from .gemma4 import tiny
    from .hosts.mlx_lm.tiny import text_model

    prompt = mx.array(tiny.prompt(40))

    def per_step(generate: Callable, *draft: Any) -> float:
        target = _Counted(text_model("e2b"))
        steps = generate(prompt, target, *draft, max_tokens=tokens)
        next(steps)
        before = target.calls
        return len(list(steps)) / (target.calls - before)

    def with_draft() -> float:
        return per_step(speculative_generate_step, text_model("e2b"))

    what = "tokens a target step, alone and with a draft that agrees"
    return _compare(what, "", partial(per_step, generate_step), with_draft, 1)


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
    activate()
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache

    from .gemma4 import tiny
    from .hosts.mlx_lm.tiny import text_model

    model = text_model("dense")
    model.set_dtype(mx.bfloat16)

    def megabytes(**how: Any) -> float:
        cache = make_prompt_cache(model)
        next(generate_step(mx.array(tiny.prompt(tokens)), model, prompt_cache=cache, **how))
        return sum(layer.nbytes for layer in cache) / 1e6

    quantized = partial(megabytes, kv_bits=8, quantized_kv_start=0)
    return _compare(
        f"KV cache of {tokens} tokens, bf16 and kv_bits=8", "MB", megabytes, quantized, 1
    )


def tool_calls(rounds: int = 5) -> list[dict[str, Any]]:
    """Parsing a tool call of 20 kB, and with the patches one of 1 MB and one of 2 MB."""
    activate()
    from mlx_lm.tool_parsers import gemma4

    item = '{name:<|"|>a name<|"|>,count:12,tags:[<|"|>x<|"|>,<|"|>y<|"|>]},'

    def seconds(size: int) -> float:
        text = "call:f{items:[" + (item * (size // len(item)))[:-1] + "]}"
        start = time.perf_counter()
        gemma4.parse_tool_call(text)
        return time.perf_counter() - start

    small = _stock_and_patched(partial(seconds, 20_000))
    large = partial(seconds, 1_000_000), partial(seconds, 2_000_000)
    return [
        _compare("tool call of 20 kB", "ms", *small, rounds),
        _compare("tool call of 1 MB, and of 2 MB", "ms", *large, rounds),
    ]


def _stock_and_patched(measure: Callable[[], float]) -> tuple[Callable, Callable]:
    if engine.ENGINE is None:
        raise RuntimeError(f"there is nothing to compare: {status()['activation']}")

    def stock() -> float:
        for patch_id in engine.ENGINE.records:
            engine.ENGINE.undo(patch_id)
        return measure()

    def patched() -> float:
        for patch_id in engine.ENGINE.records:
            engine.ENGINE.apply(patch_id)
        return measure()

    return stock, patched


def _compare(
    what: str,
    unit: str,
    stock: Callable[[], float],
    patched: Callable[[], float],
    rounds: int,
) -> dict[str, Any]:
    """``stock`` and ``patched`` measure seconds for the unit ms, else what the unit says."""
    stock(), patched()  # warm
    pairs = []
    for number in range(rounds):
        if number % 2:
            after = patched()
            pairs.append((stock(), after))
        else:
            pairs.append((stock(), patched()))
    factor = 1e3 if unit == "ms" else 1.0
    return {
        "what": what,
        "stock": statistics.median(before for before, _ in pairs) * factor,
        "patched": statistics.median(after for _, after in pairs) * factor,
        "ratio": statistics.median(after / before for before, after in pairs),
        "unit": unit,
    }
