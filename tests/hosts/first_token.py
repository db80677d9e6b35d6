"""Time to the first token of a long conversation's first and second turn, stock and patched.

``python -m tests.hosts.first_token`` starts the servers of mlx-lm and mlx-vlm with random weights
of a real size, stock and patched side by side. In each round both are asked 32 000 tokens that are
new to them and then 200 more, in turn. It prints the medians, how far the rounds lie apart, and
what the model alone takes for the same on its caches. It needs a GPU with room for two models, no
network and no tokenizer; ``--size tiny`` runs anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4 import sizes, tiny
from tests.hosts import conversations
from tests.hosts.server import listens

_SHAPES = {"tiny": "e2b", "e2b": "e2b", "26b-a4b": "moe", "31b": "dense"}
_BITS = {"31b": 4}
_SPOKEN = 300  # ids that the tokenizer has a text for
_STEP = 2048
_NEW = 200
_SAID = 8  # tokens of an answer
_HOSTS = ("mlx_lm", "mlx_lm alone", "mlx_vlm")  # alone: not in a batch, as with a seed


def model(host: str, size: str) -> Any:
    """The host's Gemma 4 of one size, random weights, bfloat16 or 4 bits."""
    settings = tiny.config(_SHAPES[size])
    if size != "tiny":
        settings["text_config"].update(sizes.text_config(size))
    settings["text_config"]["max_position_embeddings"] = 131072
    if host.startswith("mlx_lm"):
        from mlx_lm.models import gemma4

        made = gemma4.Model(gemma4.ModelArgs.from_dict(settings))
    else:
        from mlx_vlm.models import gemma4

        config = gemma4.ModelConfig.from_dict(settings)
        config.text_config = gemma4.TextConfig.from_dict(settings["text_config"])
        config.vision_config = gemma4.VisionConfig.from_dict(settings["vision_config"])
        made = gemma4.Model(config)
    text = made.language_model.model
    weight = text.embed_tokens.weight
    silent = mx.arange(weight.shape[0]) >= _SPOKEN
    text.embed_tokens.weight = mx.where(silent[:, None], 0.0, weight)
    for part in (*text.layers, text, made):
        part.set_dtype(mx.bfloat16)
        if bits := _BITS.get(size):
            nn.quantize(part, 64, bits, class_predicate=_quantizes)
        mx.eval(part.parameters())
    return made.eval()


def _quantizes(path: str, module: Any) -> bool:
    if not hasattr(module, "to_quantized") or "vision" in path or "embed_vision" in path:
        return False
    return "weight" in module and module.weight.shape[-1] % 64 == 0


def ideal(made: Any, tokens: int) -> dict[str, float]:
    """Seconds to a first token: of the whole conversation, and of its last part on the caches."""
    text = made.language_model

    def logits(ids: list[int], caches: list[Any]) -> Any:
        for start in range(0, len(ids), _STEP):
            out = text(mx.array([ids[start : start + _STEP]]), cache=caches)
            mx.eval([cache.state for cache in caches])
        return mx.argmax(getattr(out, "logits", out)[:, -1], -1)

    ids = [110 + i % 90 for i in range(tokens)]
    caches = text.make_cache()
    start = time.perf_counter()
    mx.eval(logits([*ids, *ids[:_NEW]], caches))
    afresh = time.perf_counter() - start
    caches = text.make_cache()
    mx.eval(logits(ids, caches))
    taken = []
    for _ in range(4):
        mine = copy.deepcopy(caches)
        start = time.perf_counter()
        mx.eval(logits(ids[: _NEW - 1], mine))
        mx.eval(logits(ids[:1], mine))
        taken.append(time.perf_counter() - start)
    return {"afresh": afresh, "on caches": min(taken)}


def _serve(host: str, size: str, folder: str, port: str) -> None:
    """Be the server of ``host`` with a model of ``size``."""
    mlx_gemma4_patches.activate()
    arguments = ["--model", folder, "--host", "127.0.0.1", "--port", port]
    if host.startswith("mlx_lm"):
        from mlx_lm import server

        load = server.load

        def load_random(*args, **kwargs):
            _, *others = load(*args, **kwargs)
            return (model(host, size), *others)

        server.load = load_random
        main = server.main
    else:
        from mlx_vlm.server import generation
        from mlx_vlm.server.cli import main

        load = generation.load

        def load_random(*args, **kwargs):
            _, processor = load(*args, **kwargs)
            return model(host, size), processor

        generation.load = load_random
    sys.argv = ["server", *arguments]
    main()


@contextlib.contextmanager
def _server(host: str, size: str, folder: Path, is_stock: bool) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    switch = {"MLX_GEMMA4_PATCHES": "0"} if is_stock else {}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--serve", host, size, str(folder), str(port)],
            env={**os.environ, **switch, "HF_HUB_OFFLINE": "1", "HOME": str(folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while not listens(port):
            if process.poll() is not None:
                raise SystemExit((folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(port: int, folder: Path, messages: list[dict], how: dict) -> tuple[float, str]:
    """Seconds to the first word of an answer, and that answer."""
    body = {"model": str(folder), "messages": messages, "max_tokens": _SAID, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({**body, "stream": True, **how}).encode(),
        {"Content-Type": "application/json"},
    )
    start, first, said = time.perf_counter(), 0.0, ""
    with urllib.request.urlopen(request, timeout=240) as response:
        for line in response:
            if line.startswith(b"data: {"):
                choice = json.loads(line[len("data: ") :])["choices"][0]
                text = choice["delta"].get("content") or choice["delta"].get("reasoning") or ""
                if not first and (text or choice["finish_reason"]):
                    first = time.perf_counter() - start
                said += text
    return first, said


@dataclasses.dataclass
class Times:
    """Seconds to the first token, by round."""

    first: list[float] = dataclasses.field(default_factory=list)
    second: list[float] = dataclasses.field(default_factory=list)


def measure(host: str, size: str, tokens: int, rounds: int) -> tuple[Times, Times]:
    """What first and second turns take, stock and patched."""
    how = {"seed": 1} if host == "mlx_lm alone" else {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as servers:
        ports = []
        for name in ("stock", "patched"):
            folder = conversations.save(_SHAPES[size], Path(temporary) / name / "gemma-4")
            ports.append(servers.enter_context(_server(host, size, folder, name == "stock")))
            _ask(ports[-1], folder, [_user("warm", 3000)], how)  # compiles what is compiled once
        taken = Times(), Times()
        for i in range(rounds):
            first = [_user(f"{size} 1 {i}", tokens)]
            for port, times in zip(ports, taken, strict=True):
                seconds, said = _ask(port, folder, first, how)
                times.first.append(seconds)
                then = [*first, {"role": "assistant", "content": said or "a"}]
                then.append(_user(f"{size} 2 {i}", _NEW - 20))
                times.second.append(_ask(port, folder, then, how)[0])
    return taken


def _said(seconds: list[float]) -> str:
    middle = statistics.median(seconds)
    return f"{middle:.3f} s (rounds {min(seconds) / middle:.2f} to {max(seconds) / middle:.2f})"


def _user(seed: str, length: int) -> dict[str, str]:
    return {"role": "user", "content": conversations.words(seed, length)}


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        _serve(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument(
        "--size", action="append", choices=_SHAPES, help="default: e2b, 26b-a4b, 31b"
    )
    parser.add_argument("--host", action="append", choices=_HOSTS)
    parser.add_argument("--tokens", type=int, default=32000, help="of the first turn")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    hosts = [h for h in options.host or _HOSTS if importlib.util.find_spec(h.split()[0])]
    for size in options.size or ("e2b", "26b-a4b", "31b"):
        for host in hosts:
            code = f"import json; from {__spec__.name} import *; " + (
                f"print(json.dumps(ideal(model({host!r}, {size!r}), {options.tokens})))"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            alone = json.loads(done.stdout.splitlines()[-1])
            stock, patched = measure(host, size, options.tokens, options.rounds)
            for turn in ("first", "second"):
                print(
                    f"{host} {size}, {turn} turn: {_said(getattr(stock, turn))} stock, "
                    f"{_said(getattr(patched, turn))} patched",
                    flush=True,
                )
            print(
                f"{host} {size}, the model alone: {alone['afresh']:.3f} s afresh, "
                f"{alone['on caches']:.3f} s on its caches",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
