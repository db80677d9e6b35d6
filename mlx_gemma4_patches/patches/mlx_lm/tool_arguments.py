"""A conversation with a tool call without arguments cannot be continued on the server.

What the user sees: the next request answers 404, "chat_template: tool_calls[].function.arguments
must be a JSON object (mapping), not a string", since a client writes no arguments as "". The same
with arguments that are JSON's null or missing. Up to 0.32.0 arguments that are an object already,
as clients of Ollama send them, answer "the JSON object must be str, bytes or bytearray, not dict".

Why: the server parses what is not empty, and what is no string fails up to 0.32.0
(ml-explore/mlx-lm#1904). Google's template of July 2026 raises where it is given a string.

The fix: no arguments are ``{}``, and an object reaches the server's own parsing as JSON. It can be
deleted when mlx-lm gives templates an object in every case.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ...hosts.mlx_lm import chat
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_TOKENIZE = "mlx_lm.server:ResponseGenerator._tokenize"
_PROCESS = "mlx_lm.server:process_message_content"
_ARGUMENTS = ("", " ", "null", None, {"a": 1}, '{"a": 1}')


def probe() -> Finding:
    chat.require_gemma4()
    refused = []
    for function in [{}, *({"arguments": arguments} for arguments in _ARGUMENTS)]:
        try:
            shown = tokenize(chat.tokenizer(), function)
            understood = isinstance(shown.get("arguments"), dict)
        except (TypeError, ValueError):
            understood = False
        if not understood:
            refused.append(json.dumps(function.get("arguments", "missing")))
    if refused:
        return Finding(True, f"no object for the template where arguments are {', '.join(refused)}")
    return Finding(False, "the template gets the arguments of every tool call as an object")


def tokenize(tokenizer: Any, function: dict) -> dict:
    """What the server shows the template of a tool call to ``function`` in the history."""
    from mlx_lm.server import CompletionRequest, ResponseGenerator

    call = {"id": "1", "type": "function", "function": {"name": "f", **function}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    generator = object.__new__(ResponseGenerator)
    cli_args = SimpleNamespace(chat_template_args={})
    generator.model_provider = SimpleNamespace(cli_args=cli_args, processor=None)
    prompt = generator._tokenize(
        tokenizer,
        CompletionRequest("chat", "", messages, None, None),
        SimpleNamespace(chat_template_kwargs=None),
    )[0]
    return prompt.messages[0]["tool_calls"][0]["function"]


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TOKENIZE, _with_objects)


def _with_objects(original: Callable) -> Callable:
    def _tokenize(self, tokenizer, request, *args, **kwargs):
        if is_gemma4(tokenizer):
            for function in _functions(request.messages):
                arguments = function.get("arguments")
                if isinstance(arguments, str):
                    arguments = arguments.strip()
                if arguments in ("", "null", None, {}):
                    function["arguments"] = {}
                elif isinstance(arguments, dict):
                    function["arguments"] = json.dumps(arguments)
        return original(self, tokenizer, request, *args, **kwargs)

    return _tokenize


def _functions(messages: Any) -> list[dict]:
    """The functions called in ``messages``, as far as they are what the API says."""
    calls = [
        call
        for message in messages or ()
        if isinstance(message, dict)
        for call in message.get("tool_calls") or ()
        if isinstance(call, dict)
    ]
    return [call["function"] for call in calls if isinstance(call.get("function"), dict)]


PATCH = Patch(id="mlx_lm.tool_arguments", targets=(_TOKENIZE, _PROCESS), apply=apply, probe=probe)
