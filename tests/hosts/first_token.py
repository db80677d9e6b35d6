"""Time to the first token of a long conversation's second turn, stock and patched.

``python -m tests.hosts.first_token`` starts the servers of mlx-lm and mlx-vlm with random weights
of a real size, holds a conversation of 32 000 tokens, asks 200 more, and prints what the first
token of that answer took, beside what the model alone takes for these 200 on its caches. It needs
a GPU, no network and no tokenizer; ``--size tiny`` runs anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import conversations

_PATTERN = ["sliding_attention"] * 5 + ["full_attention"]
_LARGE = {"head_dim": 256, "global_head_dim": 512, "sliding_window": 1024, "vocab_size": 262144}
# as the configurations that Google ships
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "e2b": {
        **_LARGE,
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "layer_types": ([_PATTERN[0]] * 4 + ["full_attention"]) * 7,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 20,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144,
        "sliding_window": 512,
    },
    "26b": {
        **_LARGE,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_experts": 128,
        "top_k_experts": 8,
        "layer_types": _PATTERN * 5,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
    },
    "31b": {
        **_LARGE,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "layer_types": _PATTERN * 10,
        "num_hidden_layers": 60,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
    },
}
_SHAPE = {"tiny": "e2b", "e2b": "e2b", "26b": "moe", "31b": "dense"}
_BITS = {"31b": 4}
_SPOKEN = 300  # ids that the tokenizer has a text for
_STEP = 2048
_NEW = 200
_HOSTS = ("mlx_lm", "mlx_lm alone", "mlx_vlm")  # alone: not in a batch, as with a seed


def model(host: str, size: str) -> Any:
    """The host's Gemma 4 of one size, random weights, bfloat16 or 4 bits."""
    settings = tiny.config(_SHAPE[size])
    settings["text_config"].update(SIZES[size])
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
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(port: int, folder: Path, messages: list[dict], how: dict) -> tuple[float, str]:
    """Seconds to an answer of one token, and that answer."""
    body = {"model": str(folder), "messages": messages, "max_tokens": 1, "temperature": 0, **how}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 240
    while True:
        start = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=240) as response:
                answer = json.loads(response.read())
            return time.perf_counter() - start, answer["choices"][0]["message"]["content"] or ""
        except urllib.error.HTTPError as error:
            raise SystemExit(error.read().decode()[:2000]) from error
        except urllib.error.URLError:  # not listening yet
            if time.monotonic() > deadline:
                raise SystemExit((folder / "server.log").read_text()[-2000:]) from None
            time.sleep(0.2)


def measure(host: str, size: str, tokens: int, is_stock: bool, rounds: int) -> dict[str, float]:
    """Seconds to the first token: of the first turn, and the median of ``rounds`` second turns."""
    how = {"seed": 1} if host == "mlx_lm alone" else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = conversations.save(_SHAPE[size], Path(temporary) / "gemma-4")
        with _server(host, size, folder, is_stock) as port:
            _ask(port, folder, [_user("warm", 3000)], how)  # compiles what is compiled once
            first = [_user(f"{size} 1", tokens)]
            seconds, said = _ask(port, folder, first, how)
            then = [*first, {"role": "assistant", "content": said or "a"}]
            second = [
                _ask(port, folder, [*then, _user(f"{size} 2 {i}", _NEW - 20)], how)[0]
                for i in range(rounds)
            ]
    return {"first": seconds, "second": statistics.median(second)}


def _user(seed: str, length: int) -> dict[str, str]:
    return {"role": "user", "content": conversations.words(seed, length)}


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        _serve(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("--size", action="append", choices=SIZES, help="default: e2b, 26b, 31b")
    parser.add_argument("--host", action="append", choices=_HOSTS)
    parser.add_argument("--tokens", type=int, default=32000, help="of the first turn")
    options = parser.parse_args()
    hosts = [h for h in options.host or _HOSTS if importlib.util.find_spec(h.split()[0])]
    for size in options.size or ("e2b", "26b", "31b"):
        for host in hosts:
            code = f"import json; from {__spec__.name} import *; " + (
                f"print(json.dumps(ideal(model({host!r}, {size!r}), {options.tokens})))"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            alone = json.loads(done.stdout.splitlines()[-1])
            stock = measure(host, size, options.tokens, True, 1)
            patched = measure(host, size, options.tokens, False, 5)
            ratio = stock["second"] / patched["second"]
            best = alone["afresh"] / alone["on caches"]
            print(
                f"{host} {size}: first turn {stock['first']:.3f} s stock, "
                f"{patched['first']:.3f} s patched; second turn {stock['second']:.3f} s stock, "
                f"{patched['second']:.3f} s patched, ratio {ratio:.1f}; the model alone "
                f"{alone['afresh']:.3f} s afresh, {alone['on caches']:.3f} s on its caches, "
                f"ratio {best:.1f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
