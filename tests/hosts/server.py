"""A host's real server in a process of its own, with the patches on.

As a program, ``python -m tests.hosts.server HOST MODEL ARGUMENTS...`` is that server. It takes the
likeliest token whatever a request asks for: some releases ignore ``temperature``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

import mlx_gemma4_patches
from tests.hosts import metal

_SERVERS = {
    "mlx_lm": ("mlx_lm.server", ["--model"]),
    "mlx_vlm": ("mlx_vlm.server", ["--model"]),
    "vllm_mlx": ("vllm_mlx.cli", ["serve"]),
}
_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 90  # seconds for a server to start, and for an answer


class Server:
    """A server that listens on 127.0.0.1; any number of threads may call it."""

    def __init__(self, port: int, process: subprocess.Popen, log: Path):
        self.port = port
        self.process = process
        self.log = log
        self.patience = _PATIENCE

    def __call__(self, path: str, body: dict[str, Any] | bytes) -> dict[str, Any]:
        """The JSON answer to a POST of JSON.

        Raises:
            AssertionError: the status is not 200, or there is no answer in time.
        """
        try:
            with self.ask(path, body) as response:
                answer = response.read().decode()
        except OSError as error:
            raise AssertionError(f"{error}\n{_end_of(self.log)}") from error
        assert response.status == 200, f"{response.status} {answer}\n{_end_of(self.log)}"
        return json.loads(answer)

    @contextlib.contextmanager
    def ask(self, path: str, body: dict[str, Any] | bytes) -> Iterator[http.client.HTTPResponse]:
        """The response to a POST of JSON; whoever leaves the block hangs up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
        data = body if isinstance(body, bytes) else json.dumps(body)
        try:
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            yield connection.getresponse()
        finally:
            connection.close()


@contextlib.contextmanager
def serve(
    host: str, model: Path, *arguments: str, program: str = __name__, launcher: Sequence[str] = ()
) -> Iterator[Server]:
    """Run the server of ``host`` with the model of a folder until the end of the block.

    ``launcher`` is a command that runs it, in several processes.

    Its log is in ``model / "server.log"`` and part of every error.

    Raises:
        AssertionError: the server ends early or does not listen in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = model / "server.log"
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*launcher, sys.executable, "-m", program, host, str(model), *address, *arguments],
            cwd=_ROOT,
            # Servers keep caches between runs in the home folder.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(model)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=bool(launcher),
        )

    try:
        deadline = time.monotonic() + _PATIENCE
        while not listens(port):
            assert process.poll() is None and time.monotonic() < deadline, _end_of(log)
            time.sleep(0.1)
        yield Server(port, process, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if launcher:  # which does not take its processes along when it ends
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run(host: str, model: str, *arguments: str) -> None:
    """Be the server of ``host``; does not return before it is told to end."""
    mlx_gemma4_patches.activate()
    metal.stand_in()
    module, before_model = _SERVERS[host]
    sys.argv = [module, *before_model, model, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def sample_greedily() -> None:
    """Take the likeliest token, whatever a request asks for."""
    from mlx_lm import sample_utils

    sample_utils.make_sampler = lambda *args, **kwargs: lambda logprobs: mx.argmax(logprobs, -1)


if __name__ == "__main__":
    mlx_gemma4_patches.activate()
    sample_greedily()
    run(*sys.argv[1:])
