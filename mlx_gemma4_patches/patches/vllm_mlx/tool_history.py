"""Gemma 4 is shown its own tool calls, and their results, in the words of no template.

What the user sees: after a few tools an agent writes ``[Calling tool: f({...})]`` as text instead
of calling one; of the results of two calls at once the second seems to be missing.

Why: two things. Where a checkpoint is served as a text model, vllm-mlx turns calls and results into
such lines, unless the parser says that the chat template takes them, which Gemma 4's does not say.
And up to 0.5.0 the server joins consecutive messages of one role, results of tools among them, so
that the second has no call to belong to, and assistants lose the calls of the second of two turns.

The fix: the parser says so, and with it messages that are part of a call stay as they are. It can
be deleted when Gemma 4's parser has ``SUPPORTS_NATIVE_TOOL_FORMAT``. Up to 0.3.0 an engine loses
the calls in any case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from unittest import mock

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PARSER = "vllm_mlx.tool_parsers.gemma4_tool_parser:Gemma4ToolParser"
_NORMALIZE = "vllm_mlx.server:_normalize_messages"
_RESULTS = [{"role": "tool", "tool_call_id": i, "content": i} for i in ("1", "2")]


def probe() -> Finding:
    if find_spec("vllm_mlx.engine.chat_template_safety") is None:
        raise NotApplicable("the engines of this vllm-mlx lose the calls of a conversation")
    from vllm_mlx import server
    from vllm_mlx.tool_parsers.gemma4_tool_parser import Gemma4ToolParser

    with mock.patch.object(server, "_tool_call_parser", "gemma4"):
        results = len(server._normalize_messages(_RESULTS))
    native = Gemma4ToolParser.supports_native_format()
    shown = "as they are" if native else "as text"
    return Finding(not native or results != 2, f"calls are shown {shown}, of two results {results}")


def apply(surgery: Surgery) -> None:
    surgery.add(f"{_PARSER}.SUPPORTS_NATIVE_TOOL_FORMAT", True)
    surgery.wrap(_NORMALIZE, _with_calls_apart)


def _with_calls_apart(original: Callable) -> Callable:
    def _normalize_messages(messages):
        if getattr(sys.modules["vllm_mlx.server"], "_tool_call_parser", None) != "gemma4":
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
    targets=(_PARSER, _NORMALIZE),
    apply=apply,
    probe=probe,
)
