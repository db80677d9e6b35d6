"""Tool calls with dotted names, keys such as ``my-key``, or ``None`` are refused.

What the user sees: the model calls a tool and the answer holds no call. 0.31.2 drops the
connection; later releases say ``finish_reason`` "tool_calls" with none. On 0.31.2 a brace in a
string and a hyphen in a name do it, too.

Why: the markup is turned into JSON by regular expressions that know word characters in names and
keys, and the literals of JSON. Google's templates of April and May 2026 write null as ``None``,
tools of an MCP server have names with . : and /, and models add a space after a comma.

The fix: ``gemma4.tool_calls`` parses instead. It can be deleted when mlx-lm parses what Google's
templates write. Upstream: ml-explore/mlx-lm#1105 (added), #1150 (braces and hyphens, in 0.31.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...gemma4 import tool_calls
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PARSER = "mlx_lm.tool_parsers.gemma4"
_TARGET = f"{_PARSER}:parse_tool_call"


def probe() -> Finding:
    try:
        from mlx_lm.tool_parsers.gemma4 import parse_tool_call
    except ImportError:
        raise NotApplicable("this mlx-lm has no parser for Gemma 4") from None

    return tool_calls.probe(parse_tool_call)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_our_grammar)


def _with_our_grammar(original: Callable) -> Callable:
    def parse_tool_call(text: str, _: Any = None) -> dict | list[dict]:
        calls = tool_calls.parse(text)
        return calls[0] if len(calls) == 1 else calls

    return parse_tool_call


PATCH = Patch(
    id="mlx_lm.tool_parser",
    targets=(_TARGET, f"{_PARSER}:_parse_single", f"{_PARSER}:_gemma4_args_to_json"),
    apply=apply,
    probe=probe,
)
