"""A tiny model that says what a test wants, and a host's real server around it.

The model runs as it is; its logits are then replaced. What comes next in ``says`` depends on the
last token alone, so a script holds in batches, after prefill in chunks and with every cache.
``says_text`` may repeat itself, to one request at a time.

As a program, ``python -m tests.hosts.script HOST FILE ARGUMENTS...`` is the host's server with the
ids in the JSON file for a script; a test may rewrite the file between two requests.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx

from mlx_gemma4_patches.gemma4.tiny import VOCABULARY
from tests.hosts import metal

MODELS = {
    "mlx_lm": ["mlx_lm.models.gemma4_text:Model"],
    "mlx_vlm": [
        "mlx_vlm.models.gemma4.language:LanguageModel",
        "mlx_vlm.models.gemma4.gemma4:Model",
    ],
}
MODELS["vllm_mlx"] = MODELS["mlx_lm"] + MODELS["mlx_vlm"]
_SERVERS = {
    "mlx_lm": ("mlx_lm.server", ["--model"]),
    "mlx_vlm": ("mlx_vlm.server", ["--model"]),
    "vllm_mlx": ("vllm_mlx.cli", ["serve"]),
}
_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 90  # seconds for a server to start, and for an answer


@contextlib.contextmanager
def says(host: str, ids: list[int]) -> Iterator[None]:
    """Within, the models of ``host`` say ``ids`` after any prompt, then the last one for ever.

    The ids are distinct, and the prompt ends with none of them.
    """
    with contextlib.ExitStack() as stack:
        for name in MODELS[host]:
            stack.enter_context(scripted(name, lambda inputs: _successors(ids)[inputs]))
        yield


@contextlib.contextmanager
def says_text(host: str, ids: Callable[[], list[int]]) -> Iterator[None]:
    """Within, the models of ``host`` say ``ids()``, of which any may come again, to any prompt.

    One request at a time; the first id is not the last of the prompt.
    """
    with contextlib.ExitStack() as stack:
        for name in MODELS[host]:
            stack.enter_context(scripted(name, _Text(ids)))
        yield


class _Text:
    """Follows a sequence by what it is given back: whatever is not the last id is a prompt."""

    def __init__(self, ids: Callable[[], list[int]]):
        self._ids = ids
        self._at = 0

    def __call__(self, inputs: mx.array) -> mx.array:
        ids = self._ids()
        goes_on = inputs.shape[1] == 1 and inputs[0, 0].item() == ids[self._at % len(ids)]
        self._at = self._at + 1 if goes_on else 0
        return mx.full(inputs.shape, ids[min(self._at, len(ids) - 1)])


@contextlib.contextmanager
def scripted(name: str, following: Callable[[mx.array], mx.array]) -> Iterator[None]:
    """Within, the model ``module:Class`` says ``following`` its input ids (B, L)."""
    module, _, attribute = name.partition(":")
    model = getattr(importlib.import_module(module), attribute)
    original = model.__call__

    @functools.wraps(original)
    def call(self, *args, **kwargs):
        made = original(self, *args, **kwargs)
        inputs = args[0] if args else kwargs.get("inputs")
        if inputs is None:  # only embeddings: whoever made them of ids is scripted too
            return made
        logits = getattr(made, "logits", made)
        said = following(inputs[:, -logits.shape[1] :])[..., None]
        wanted = 1e4 * (said == mx.arange(VOCABULARY)).astype(logits.dtype)
        if made is logits:
            return wanted
        made.logits = wanted
        return made

    model.__call__ = call
    try:
        yield
    finally:
        model.__call__ = original


def _successors(ids: list[int]) -> mx.array:
    following = dict(zip(ids, [*ids[1:], ids[-1]], strict=True))
    return mx.array([following.get(i, ids[0]) for i in range(VOCABULARY)])


class Server:
    """A server that listens on 127.0.0.1."""

    def __init__(self, port: int, file: Path):
        self.port = port
        self._file = file

    def answer(self, script: list[int], path: str, **request) -> dict:
        """The JSON answer to a POST of ``request``, of a model that says ``script``."""
        self._file.write_text(json.dumps(script))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        return json.loads(body)


@contextlib.contextmanager
def server(host: str, model: Path, *arguments: str) -> Iterator[Server]:
    """The server of ``host`` with the model of a folder; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = model / "script.json"
    file.write_text("[0]")
    log = model / "server.log"
    arguments = (host, file, model, "--host", "127.0.0.1", "--port", str(port), *arguments)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.script", *arguments],
            cwd=_ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(model)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        yield Server(port, file)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _serve(host: str, file: str, model: str, *arguments: str) -> None:
    import mlx_gemma4_patches

    mlx_gemma4_patches.activate()
    metal.stand_in()
    module, before_model = _SERVERS[host]
    sys.argv = [module, *before_model, model, *arguments]
    with contextlib.ExitStack() as stack:
        for name in MODELS[host]:
            stack.enter_context(
                scripted(name, lambda i: _successors(json.loads(Path(file).read_bytes()))[i])
            )
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
