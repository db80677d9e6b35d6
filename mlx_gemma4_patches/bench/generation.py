"""Time to the first token, tokens per second and memory, of one request and of a batch.

Stock and patched run in turn, each in a fresh process that holds the model alone, so that a large
one fits. Every process warms up and measures a few times; its figures are medians.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ..children import Ended, messages, tell
from .comparing import STOCK_AND_PATCHED, row

PROMPT, ANSWER = 512, 64  # tokens
ROUNDS = 3  # of stock, patched and stock
_GROUP = 64  # values that share a scale
_SECONDS = 900  # without a word from a process
_UNITS = {"time to first token": "ms", "prompt": "tokens/s", "answer": "tokens/s", "peak": "GB"}
Figures = dict[str, float]


class Task(NamedTuple):
    """What a process is to measure."""

    host: str
    size: str  # tiny, or of gemma4.sizes
    model: str | None  # a folder, instead of random weights
    bits: int | None  # to quantize random weights to
    requests: int
    repeats: int = 5  # measured in one process

    @property
    def name(self) -> str:
        what = self.model and Path(self.model).name
        bits = f", {self.bits}-bit" if self.bits else ""
        many = f"{self.requests} requests" if self.requests > 1 else "1 request"
        return f"{self.host.replace('_', '-')}, {what or self.size + bits}, {many}"


def compare(task: Task, say: Callable[[str], None], rounds: int = ROUNDS) -> Iterator[dict]:
    """The rows of one task; a row with ``error`` where a process failed."""
    seen: dict[str, list[list[float]]] = defaultdict(lambda: [[], [], []])
    for number in range(rounds):
        order = [(0, "stock"), (1, "patched"), (2, "stock")]
        for place, mode in order[::-1] if number % 2 else order:
            say(f"{task.name}: {mode}, round {number + 1} of {rounds}")
            try:
                figures = _run(task, mode)
            except Ended as how:
                yield {"table": "generation", "what": f"{task.name}, {mode}", "error": str(how)}
                return
            for name, figure in figures.items():
                seen[name][place].append(figure)
    for name, figures in seen.items():
        unit = _UNITS[name]
        yield row("generation", f"{name}, {task.name}", unit, STOCK_AND_PATCHED, figures)


def _run(task: Task, mode: str) -> Figures:
    environ = {**os.environ, "MLX_GEMMA4_PATCHES": "0" if mode == "stock" else "1"}
    command = [sys.executable, "-m", __spec__.name, json.dumps(task)]
    (figures,) = (m[0] for m in messages(command, environ, threading.Event(), _SECONDS))
    return figures


def main(text: str) -> None:
    """The child: make the model, warm up, measure, tell."""
    import mlx_gemma4_patches

    mlx_gemma4_patches.activate()
    task = Task(*json.loads(text))
    model = _model(task)
    steps = _batch(model, task.requests) if task.requests > 1 else _STEPS[task.host](model)
    _measure(steps, task.requests)
    runs = [_measure(steps, task.requests) for _ in range(task.repeats)]
    tell({name: statistics.median(run[name] for run in runs) for name in _UNITS})


def _measure(steps: Callable[[], Iterator[int]], requests: int) -> Figures:
    """``steps`` gives how many tokens came, each time that some have come."""
    import mlx.core as mx

    mx.clear_cache()
    mx.reset_peak_memory()
    start = time.perf_counter()
    said = steps()
    next(said)
    first = time.perf_counter()
    tokens = sum(said)
    end = time.perf_counter()
    return {
        "time to first token": 1e3 * (first - start),
        "prompt": requests * PROMPT / (first - start),
        "answer": tokens / (end - first),
        "peak": mx.get_peak_memory() / 1e9,
    }


def _model(task: Task) -> Any:
    if task.model:
        utils = importlib.import_module(f"{task.host}.utils")
        loaded = utils.load_model(Path(task.model))
        return loaded[0] if isinstance(loaded, tuple) else loaded
    return _MAKERS[task.host](task)


def _of_mlx_lm(task: Task) -> Any:
    from mlx_lm.models import gemma4_text

    from ..gemma4 import sizes
    from ..hosts.mlx_lm.tiny import text_model

    if task.size == "tiny":
        return text_model("e2b")
    args = gemma4_text.ModelArgs.from_dict(sizes.text_config(task.size))
    return _ready(gemma4_text.Model(args), task.bits)


def _of_mlx_vlm(task: Task) -> Any:
    from mlx_vlm.models import gemma4

    from ..gemma4 import sizes
    from ..hosts.mlx_vlm import tiny

    if task.size == "tiny":
        return tiny.model("e2b")
    text = gemma4.TextConfig.from_dict(sizes.text_config(task.size))
    return _ready(gemma4.Model(gemma4.ModelConfig(text_config=text)), task.bits)


def _ready(model: Any, bits: int | None) -> Any:
    """Random weights in bfloat16, or quantized; made one module at a time, for the memory."""
    import mlx.core as mx
    import mlx.nn as nn

    model.set_dtype(mx.bfloat16)
    if bits:
        nn.quantize(model, _GROUP, bits, class_predicate=_as_hosts_convert(model))
    for module in model.leaf_modules().values():
        _evaluate(module)
    mx.eval(model.parameters())
    return model


def _as_hosts_convert(model: Any) -> Callable[[str, Any], Any]:
    """Which modules to quantize, and how, as the hosts' own conversions do."""
    own = getattr(model, "quant_predicate", None)

    def predicate(path: str, module: Any) -> Any:
        if not hasattr(module, "to_quantized") or module.weight.shape[-1] % _GROUP:
            return False
        return own(path, module) if own else True

    return predicate


def _evaluate(modules: Any) -> None:
    import mlx.core as mx

    if isinstance(modules, dict) and not hasattr(modules, "parameters"):
        modules = list(modules.values())
    if isinstance(modules, list):
        for module in modules:
            _evaluate(module)
    else:
        mx.eval(modules.parameters())


def _prompt(row: int = 0) -> list[int]:
    from ..gemma4 import tiny

    return tiny.prompt(PROMPT, seed=row)


def _one_of_mlx_lm(model: Any) -> Callable[[], Iterator[int]]:
    import mlx.core as mx

    host = importlib.import_module("mlx_lm.generate")  # also the name of a function there

    def steps() -> Iterator[int]:
        for _ in host.generate_step(mx.array(_prompt()), model, max_tokens=ANSWER + 1):
            yield 1

    return steps


def _one_of_mlx_vlm(model: Any) -> Callable[[], Iterator[int]]:
    import mlx.core as mx

    host = importlib.import_module("mlx_vlm.generate")

    def steps() -> Iterator[int]:
        row = mx.array([_prompt()])
        for _ in host.generate_step(row, model, None, None, max_tokens=ANSWER + 1, temperature=0.0):
            yield 1

    return steps


def _batch(model: Any, requests: int) -> Callable[[], Iterator[int]]:
    host = importlib.import_module("mlx_lm.generate")

    def steps() -> Iterator[int]:
        sizes = {"prefill_batch_size": requests, "completion_batch_size": requests}
        batch = host.BatchGenerator(model, max_tokens=ANSWER + 1, **sizes)
        batch.insert([_prompt(row) for row in range(requests)])
        left = requests * (ANSWER + 1)
        while left:
            made = batch.next()
            said = made[-1] if isinstance(made, tuple) else made
            left -= len(said)
            if said:
                yield len(said)

    return steps


_MAKERS = {"mlx_lm": _of_mlx_lm, "mlx_vlm": _of_mlx_vlm}
_STEPS = {"mlx_lm": _one_of_mlx_lm, "mlx_vlm": _one_of_mlx_vlm}


def tasks(size: str, model: str | None, bits: int | None, requests: Sequence[int]) -> list[Task]:
    """What this installation can measure; batches with mlx-lm alone."""
    found = []
    for host in ("mlx_lm", "mlx_vlm"):
        if find_spec(host):
            counts = requests if host == "mlx_lm" else [n for n in requests if n == 1]
            found += [Task(host, size, model, bits, count) for count in counts]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
