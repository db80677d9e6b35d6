"""Gemma 4 is shown its own tool calls, and their results, in the words of no template.

What the user sees: after a few tools an agent writes ``[Calling tool: f({...})]`` as text instead
of calling one; of the results of two calls at once the second seems to be missing.

Why: two things. Where a checkpoint is served as a text model, and by ``/v1/responses``, vllm-mlx
turns calls and results into such lines, unless the parser says that the chat template takes them,
which Gemma 4's does not say. And up to 0.5.0 the server joins consecutive messages of one role,
results of tools among them, so that the second has no call to belong to, and assistants lose the
calls of the second of two turns.

The fix: messages that are part of a call stay as they are. Calls that follow each other, as those
of ``/v1/responses`` do, become one message, which the results of all belong to. Templates raise on
a result without a call and on arguments that are no object: these are left to vllm-mlx's lines. It
can be deleted when Gemma 4's parser has ``SUPPORTS_NATIVE_TOOL_FORMAT``. Up to 0.3.0 an engine
loses the calls in any case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import chain
from unittest import mock

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_EXTRACT = "vllm_mlx.api.utils:extract_multimodal_content"
_NORMALIZE = "vllm_mlx.server:_normalize_messages"
_CALLS = [{"id": i, "function": {"name": "f", "arguments": "{}"}} for i in ("1", "2")]
_RESULTS = [{"role": "tool", "tool_call_id": i, "content": i} for i in ("1", "2")]
_HISTORY = [{"role": "assistant", "content": "", "tool_calls": _CALLS}, *_RESULTS]


def probe() -> Finding:
    if find_spec("vllm_mlx.engine.chat_template_safety") is None:
        raise NotApplicable("the engines of this vllm-mlx lose the calls of a conversation")
    from vllm_mlx import server

    with mock.patch.object(server, "_tool_call_parser", "gemma4"):
        is_native = "tool_calls" in server.extract_multimodal_content(_HISTORY)[0][0]
        results = len(server._normalize_messages(_RESULTS))
    shown = "as such" if is_native else "as plain text"
    return Finding(
        not is_native or results != 2,
        f"the template gets tool calls {shown}, and {results} of two results",
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_EXTRACT, _with_calls_and_results)
    surgery.wrap(_NORMALIZE, _with_calls_apart)


def _reads_calls_of_gemma4() -> bool:
    return getattr(sys.modules.get("vllm_mlx.server"), "_tool_call_parser", None) == "gemma4"


def _with_calls_and_results(original: Callable) -> Callable:
    def extract_multimodal_content(messages, preserve_native_format=False):
        if not _reads_calls_of_gemma4():
            return original(messages, preserve_native_format)
        shown = [original([], True)]
        for run in _runs(messages):
            is_whole = _is_whole(run)
            found, *media = original(run, is_whole)
            shown.append((_as_one(found) if is_whole else found, *media))
        return tuple(list(chain.from_iterable(column)) for column in zip(*shown, strict=True))

    return extract_multimodal_content


def _runs(messages) -> list[list]:
    """Calls that follow each other and their results are one run, other messages one each."""
    runs: list[list] = []
    for message in messages:
        is_result = _fields(message).get("role") == "tool"
        if runs and (is_result or (_calls(message) and _calls(runs[-1][-1]))):
            runs[-1].append(message)
        else:
            runs.append([message])
    return runs


def _is_whole(run: list) -> bool:
    """Whether every call can be shown by a template and every result belongs to one."""
    calls = [call for message in run for call in _calls(message)]
    ids = [call.get("id") for call in calls]
    results = [_fields(message) for message in run if _fields(message).get("role") == "tool"]
    return all(map(_can_be_shown, calls)) and all(r.get("tool_call_id") in ids for r in results)


def _can_be_shown(call) -> bool:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return False
    return isinstance(function.get("name"), str) and isinstance(arguments, (dict, type(None)))


def _as_one(messages: list[dict]) -> list[dict]:
    """A run whose calls are in its first message and whose results are text."""
    from vllm_mlx.api.utils import _content_to_text

    callers = [message for message in messages if message.get("tool_calls")]
    if not callers:
        return messages
    said = "\n\n".join(message["content"] for message in callers if message["content"])
    calls = [call for message in callers for call in message["tool_calls"]]
    results = [
        {**message, "content": _content_to_text(message["content"])}
        for message in messages[len(callers) :]
    ]
    return [{**callers[0], "content": said, "tool_calls": calls}, *results]


def _calls(message) -> list:
    return _fields(message).get("tool_calls") or []


def _fields(message) -> dict:
    return message if isinstance(message, dict) else vars(message)


def _with_calls_apart(original: Callable) -> Callable:
    def _normalize_messages(messages):
        if not _reads_calls_of_gemma4():
            return original(messages)
        normalized, run = [], []
        for message in messages:
            if message.get("role") == "tool" or message.get("tool_calls"):
                normalized += original(run) + original([message])  # joined with no other
                run = []
            else:
                run.append(message)
        normalized += original(run)
        return normalized

    return _normalize_messages


PATCH = Patch(
    id="vllm_mlx.tool_history",
    targets=(_EXTRACT, _NORMALIZE),
    apply=apply,
    probe=probe,
)
