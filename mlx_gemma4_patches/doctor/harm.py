"""Checks that patches harm nothing: what models say where nothing was wrong.

Other models than Gemma 4 must say the same, bit for bit, with the patches and without; Gemma 4 the
tokens of transformers, or, where the host is wrong in another way, what it says without patches.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..gemma4 import tiny
from ..hosts.mlx_lm import tiny as mlx_lm_tiny
from ..hosts.mlx_vlm import tiny as mlx_vlm_tiny
from . import other_models

# transformers' greedy tokens, by shape and length of the prompt; tests/reference/make.py has them
GREEDY = Path(__file__).parent / "greedy.json"
SEEDS = {8: 11, 40: 8}  # of the prompts
_ROWS = [tiny.prompt(length, seed=length) for length in (40, 21, 5)]  # past the window, and not
_TOKENS = 8


def reference(check: str) -> str | None:
    """What transformers says in a check of Gemma 4; None for another model's."""
    name = check.rpartition(" ")[2]
    if name not in tiny.SHAPES:
        return None
    greedy = json.loads(GREEDY.read_text(encoding="utf-8"))[name]
    return _text(greedy[str(length)] for length in SEEDS)


def of_host(host: str) -> list[str]:
    """The names of the checks that are about a host."""
    return [name for name in CHECKS if name.startswith(f"{host} ")]


def _other_on_mlx_lm(name: str) -> str:
    """Greedy tokens and logprobs of prompts alone and together."""
    from mlx_lm.generate import BatchGenerator, generate_step

    model = other_models.of_mlx_lm(name)
    said = [
        part
        for row in _ROWS
        for part in generate_step(mx.array(row), model, max_tokens=_TOKENS, prefill_step_size=16)
    ]
    generator = BatchGenerator(model, max_tokens=_TOKENS, prefill_step_size=16)
    rows: dict[int, list[Any]] = {uid: [] for uid in generator.insert(_ROWS)}
    try:
        while any(len(row) < _TOKENS for row in rows.values()):
            made = generator.next()
            for part in made[1] if isinstance(made, tuple) else made:
                rows[part.uid].append((part.token, part.logprobs))
    finally:
        getattr(generator, "close", bool)()
    return _digest([*said, *(part for row in rows.values() for part in row)])


def _other_on_mlx_vlm(make: Callable[[], tuple[Any, list[int]]]) -> str:
    """Greedy tokens and logprobs behind a text, and behind one with an image."""
    generate = importlib.import_module("mlx_vlm.generate")  # also the name of a function there
    model, image = make()
    text = tiny.prompt(40)
    pixels = mx.random.normal((1, 3, 32, 32), key=mx.random.key(0))
    said: list[Any] = []
    for row, seen in ((text, None), ([*text[:3], *image, *text[3:]], pixels)):
        ids = mx.array([row])
        how = {"max_tokens": _TOKENS, "temperature": 0.0}
        said += generate.generate_step(ids, model, seen, mx.ones_like(ids), **how)
    return _digest(said)


def _gemma4_on_mlx_lm(shape: str) -> str:
    model = mlx_lm_tiny.text_model(shape)
    return _greedy(lambda ids, cache: model(ids, cache=cache), model.make_cache)


def _gemma4_on_mlx_vlm(shape: str) -> str:
    model = mlx_vlm_tiny.model(shape).language_model
    return _greedy(lambda ids, cache: model(ids, cache=cache).logits, model.make_cache)


def _greedy(logits: Callable[[mx.array, Any], mx.array], make_cache: Callable[[], Any]) -> str:
    said: list[list[Any]] = []
    for length, seed in SEEDS.items():
        following, cache = mx.array(tiny.prompt(length, seed)), make_cache()
        said.append([])
        for _ in range(24):
            following = mx.argmax(logits(following[None], cache)[0, -1:], axis=-1)
            said[-1].append(following.item())
    return _text(said)


def _text(rows: Iterable[Iterable[int]]) -> str:
    return "; ".join(" ".join(map(str, row)) for row in rows)


def _digest(said: Iterable[tuple[Any, ...]]) -> str:
    """Of tokens and logprobs, to the last bit."""
    made = hashlib.sha256()
    for token, logprobs, *_ in said:
        made.update(f"{int(token)} {logprobs.shape} {logprobs.dtype} ".encode())
        made.update(bytes(memoryview(logprobs.astype(mx.float32))))
    return made.hexdigest()[:16]


CHECKS: dict[str, Callable[[], str]] = {
    **{f"mlx_lm {name}": functools.partial(_other_on_mlx_lm, name) for name in other_models.NAMES},
    "mlx_vlm gemma3": functools.partial(_other_on_mlx_vlm, other_models.gemma3_vlm),
    "mlx_vlm llava": functools.partial(_other_on_mlx_vlm, other_models.llava_vlm),
    **{f"mlx_lm {shape}": functools.partial(_gemma4_on_mlx_lm, shape) for shape in tiny.SHAPES},
    **{f"mlx_vlm {shape}": functools.partial(_gemma4_on_mlx_vlm, shape) for shape in tiny.SHAPES},
}
