"""mlx-lm's real server, of a model that says what each request asks it to say.

As a pytest plugin, the fixture ``chat_server``: it listens on 127.0.0.1 in this process, so that a
patch can be taken back while it serves. As a program, ``python -m tests.hosts.chat_server mlx_lm
MODEL ARGUMENTS...``, it is what ``python -m mlx_lm.server`` is.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import mlx.core as mx
import pytest

import mlx_gemma4_patches
from tests.hosts import server
from tests.hosts.chat import Chat, save


@pytest.fixture(scope="session")
def chat_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    """One for all test modules that name this module in ``pytest_plugins``."""
    from mlx_lm import server as host

    folder = save(tmp_path_factory.mktemp("gemma-4-tiny"))
    running: dict[str, Any] = {}
    run_http_server = host._run_http_server

    class Listening(host.ThreadingHTTPServer):
        request_queue_size = 64  # connections at once, before the first is accepted

        def service_actions(self):
            running["http"] = self

    def listen(address, port, generator):
        running["generator"] = generator
        run_http_server(address, port, generator, server_class=Listening)

    with (
        mock.patch.object(host, "make_logits_processors", _scripted(host.make_logits_processors)),
        mock.patch.object(host.APIHandler, "log_message", lambda *args: None),
    ):
        thread = threading.Thread(target=host.main, daemon=True)
        with (
            mock.patch.object(host, "_run_http_server", listen),
            mock.patch.object(sys, "argv", ["server", "--model", str(folder), "--port", "0"]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # that it is not meant for production
            thread.start()
            deadline = time.monotonic() + 60
            while "http" not in running:
                assert thread.is_alive() and time.monotonic() < deadline
                time.sleep(0.05)
        yield Chat(running["http"].server_port, folder)
        running["http"].shutdown()
        running["generator"].stop_and_join()


def _scripted(original: Any) -> Any:
    def make_logits_processors(logit_bias=None, *args, **kwargs):
        if not logit_bias:
            return original(logit_bias, *args, **kwargs)
        script = iter([int(token) for _, token in sorted(logit_bias.items())])

        def say(tokens: mx.array, logits: mx.array) -> mx.array:
            wanted = next(script, 0)  # tokens behind the end are decoded ahead and dropped
            return mx.where(mx.arange(logits.shape[-1]) == wanted, 0.0, -1e4).astype(logits.dtype)

        return [lambda tokens, logits: mx.broadcast_to(say(tokens, logits), logits.shape)]

    return make_logits_processors


if __name__ == "__main__":
    mlx_gemma4_patches.activate()
    from mlx_lm import sample_utils

    sample_utils.make_logits_processors = _scripted(sample_utils.make_logits_processors)
    server.run(*sys.argv[1:])
