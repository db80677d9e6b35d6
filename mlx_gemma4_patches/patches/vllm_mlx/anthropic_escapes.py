r"""Requests of Claude Code that hold a backslash in the wrong place are refused.

What the user sees: status 500 for a tool's regular expression or a Windows path such as
``"C:\\s \d"`` and ``"C:\usr"``, and nothing but to leave the conversation.

Why: some clients write a lone backslash into JSON. From 0.2.8 on vllm-mlx doubles it, but also the
second one of a pair, and not the one of ``\u`` without four digits; 0.2.7 doubles none, and where
tokens are counted no release does (waybarrios/vllm-mlx#256).

The fix: what the two Anthropic endpoints receive and cannot parse is parsed once more, with every
backslash doubled that begins no escape of JSON. It can be deleted when vllm-mlx does so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

from ...patch import Finding, Patch
from ...surgery import Surgery

_MESSAGES = "vllm_mlx.server:create_anthropic_message"
_COUNT = "vllm_mlx.server:count_anthropic_tokens"
_PARSE = "starlette.requests:Request.json"
_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
_BACKSLASH = re.compile(rb'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_BODIES = (rb'{"a": "\d"}', rb'{"a": "C:\\s \d"}', rb'{"a": "C:\usr"}')


def probe() -> Finding:
    from vllm_mlx import server

    refused = []
    for handler in (server.create_anthropic_message, server.count_anthropic_tokens):
        for body in _BODIES:
            if not asyncio.run(_is_understood(server, handler, body)):
                refused.append(f"{body.decode()} by {handler.__name__}")
    if refused:
        return Finding(True, f"{len(refused)} of 6 bodies refused, such as {refused[0]}")
    return Finding(False, "6 bodies understood")


async def _is_understood(server: Any, handler: Callable, body: bytes) -> bool:
    """Whether a handler gets past the parsing of ``body``, which is no request after that."""
    from starlette.requests import Request

    async def receive():
        return {"type": "http.request", "body": body}

    path = _PATHS[handler is server.count_anthropic_tokens]
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    no_engine = {"get_engine": lambda: None, "_acquire_default_engine_for_request": None}
    with contextlib.ExitStack() as stack:
        for name, value in no_engine.items():
            stack.enter_context(mock.patch.object(server, name, value, create=True))
        try:
            await handler(Request(scope, receive))
        except json.JSONDecodeError:
            return False
        except Exception:
            return True
    return True


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PARSE, _with_repair)


def _with_repair(original: Callable) -> Callable:
    async def json_of(self):
        try:
            return await original(self)
        except json.JSONDecodeError as error:
            if self.scope.get("path") not in _PATHS:
                raise
            try:
                self._json = json.loads(_BACKSLASH.sub(_doubled, await self.body()))
            except (ValueError, RecursionError):
                raise error from None
            return self._json

    return json_of


def _doubled(backslash: re.Match) -> bytes:
    return backslash[0] if backslash[1] else rb"\\"


PATCH = Patch(
    id="vllm_mlx.anthropic_escapes",
    targets=(f"{_MESSAGES}()", f"{_COUNT}()"),
    apply=apply,
    probe=probe,
)
