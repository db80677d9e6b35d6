"""mlx-vlm's real server, of a model that says what each request asks it to say.

A pytest plugin with the fixture ``mlx_vlm_chat``: the server listens on 127.0.0.1 in this process,
so that a patch can be taken back while it serves. One request at a time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import pytest
from packaging.version import Version

from tests.hosts import script
from tests.hosts.chat import Chat, save


class VlmChat(Chat):
    """A client that sets the script of the model in this process."""

    def __init__(self, port: int, folder: Path):
        super().__init__(port, folder)
        self.model = str(folder)
        self.ids_said: list[int] = [0]

    def scripted(self, ids: list[int]) -> dict[str, Any]:
        self.ids_said = ids
        return {"temperature": 0.0}

    def answer(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        reply = self.reply(says, messages, **parameters)
        if "choices" not in reply:
            return reply
        (choice,) = reply["choices"]
        return _plain(choice["message"], choice["finish_reason"])

    def stream(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        reply = self._post(self.body(says, messages, stream=True, **parameters))
        if "chunks" not in reply:
            return reply
        together: dict[str, Any] = {"content": "", "reasoning": "", "tool_calls": []}
        finish_reason = None
        for chunk in reply["chunks"]:
            if "error" in chunk:
                return chunk
            for choice in chunk["choices"]:
                delta = choice["delta"] or {}
                for key in ("content", "reasoning"):
                    together[key] += delta.get(key) or ""
                for made in delta.get("tool_calls") or ():
                    _put_together(together["tool_calls"], made)
                finish_reason = choice.get("finish_reason") or finish_reason
        return _plain(together, finish_reason)

    def both(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        whole = self.answer(says, messages, **parameters)
        streamed = self.stream(says, messages, **parameters)
        assert streamed == whole
        return whole


def splits_streams_well() -> bool:
    """Whether mlx_vlm.thinking is for this release: 0.6.0 loses what comes with a marker."""
    with contextlib.suppress(ImportError):
        from mlx_vlm.server import responses_state

        return hasattr(responses_state, "ThinkingStreamState")
    return False


def _put_together(calls: list[dict], delta: dict) -> None:
    """Add a delta to the call of its index: from 0.7.8 on arguments come in pieces."""
    if delta["index"] == len(calls):
        calls.append({**delta, "function": dict(delta["function"])})
    else:
        calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]


def _plain(message: dict, finish_reason: str) -> dict:
    """What is there of content, reasoning and calls, arguments as objects."""
    found = {key: message[key] for key in ("content", "reasoning") if message.get(key)}
    if calls := message.get("tool_calls"):
        assert len({made["id"] for made in calls}) == len(calls)
        functions = [made["function"] for made in calls]
        found["calls"] = [{f["name"]: json.loads(f["arguments"])} for f in functions]
    return {**found, "finish_reason": finish_reason}


@pytest.fixture(scope="module")  # the models of this process are scripted meanwhile
def mlx_vlm_chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VlmChat]:
    """For test modules that name this module in ``pytest_plugins``."""
    if Version(version("mlx-vlm")) < Version("0.5") and Version(mx.__version__) >= Version("0.32"):
        pytest.skip("this mlx-vlm answers in the thread that imported it, here the tests' own")
    import uvicorn
    from mlx_vlm.server import app

    folder = save(tmp_path_factory.mktemp("gemma-4-tiny"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    logging.getLogger("mlx_vlm.server").setLevel(logging.CRITICAL)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    chat = VlmChat(server.servers[0].sockets[0].getsockname()[1], folder)
    # whatever is not the last id is a prompt to the script, and a kept prefix leaves any one token
    nothing_is_kept = mock.patch.dict(os.environ, {"MLX_GEMMA4_PATCHES_PREFIX_BYTES": "0"})
    with nothing_is_kept, script.says_text("mlx_vlm", lambda: chat.ids_said):
        yield chat
        chat.post("/unload", {})  # ends the thread that generates
    server.should_exit = True
    thread.join(10)
