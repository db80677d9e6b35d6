"""Tool calls come with arguments that are cut, or that carry markup; some names are refused.

What the user sees: a ``}`` in a string ends the arguments there, without a word: ``a } b`` arrives
as ``a ``. Keys in ``<|"|>`` keep these marks. ``None`` and ``True``, which Google's templates of
April and May 2026 write, are strings. Up to 0.4.4 a tool with a hyphen in its name is not called,
up to 0.6.3 none with a dot or a colon, and none with a slash to this day.

Why: a regular expression that knows braces and no strings finds the end of the arguments.

The fix: ``gemma4.tool_calls`` parses instead; what it refuses is mlx-vlm's to read. From 0.7.8 on
the server also streams arguments before they are complete, by a reading of its own
(``tools.streaming._gemma_call``) with a helper of this parser; where that reading differs from ours
nothing is streamed before the call is complete. It can be deleted when mlx-vlm parses what Google's
templates write.

Upstream: Blaizzy/mlx-vlm#916 (nested arguments, 0.4.4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from ...gemma4 import tool_calls
from ...gemma4.tool_calls import QUOTE
from ...hosts.mlx_vlm.tool_calls import PARSERS, host_parser
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_WITHOUT_CALL = re.compile(r":?(?!call:)(?=[\w.:/-]+\{)")
_OPEN_STRING = re.compile(rf"\s*\w+:\s*{re.escape(QUOTE)}")


def probe() -> Finding:
    parser = host_parser()
    if parser is None:
        raise NotApplicable("this mlx-vlm leaves Gemma 4's tool calls to mlx-lm")

    def parse(text: str) -> dict[str, Any]:
        call = parser.parse_tool_call(text, None)
        arguments = call["arguments"]
        is_json = isinstance(arguments, str)
        return {**call, "arguments": json.loads(arguments) if is_json else arguments}

    return tool_calls.probe(parse)


def apply(surgery: Surgery) -> None:
    for parser in PARSERS:
        if f"{parser}:parse_tool_call" in surgery.targets:
            surgery.wrap(f"{parser}:parse_tool_call", _with_our_grammar)
            surgery.wrap(
                f"{parser}:_split_top_level",
                _where_readings_agree(surgery.resolve(f"{parser}:_parse_object")),
            )


def _with_our_grammar(original: Callable) -> Callable:
    as_json = isinstance(original("call:f{}")["arguments"], str)  # from 0.5.0 on

    def parse_tool_call(text: str, tools: Any = None) -> dict | list[dict]:
        named = text.strip().removeprefix(tool_calls.START).lstrip()
        if head := _WITHOUT_CALL.match(named):  # as the host takes it from 0.6.4 on
            named = f"call:{named[head.end() :]}"
        try:
            calls = tool_calls.parse(named)
        except ValueError:
            return original(text, tools)
        if as_json:
            calls = [{**call, "arguments": json.dumps(call["arguments"])} for call in calls]
        return calls[0] if len(calls) == 1 else _Calls(calls)

    return parse_tool_call


class _Calls(list):
    """Several calls; to a server that takes one, as they do up to 0.6.1, the first of them."""

    def __getitem__(self, key: Any) -> Any:
        return self[0][key] if isinstance(key, str) else super().__getitem__(key)


def _where_readings_agree(parse_object: Callable) -> Callable:
    def agree(entry: str) -> bool:
        is_open = entry.count(QUOTE) == 1 and _OPEN_STRING.match(entry)
        host = parse_object(entry + QUOTE if is_open else entry)
        try:
            (ours,) = tool_calls.parse(f"call:f{{{entry}{QUOTE if is_open else ''}}}")
        except ValueError:
            return False
        return json.dumps(ours["arguments"]) == json.dumps(host)

    def make(original: Callable) -> Callable:
        def split_top_level(text: str, *args: Any, **kwargs: Any) -> list[str]:
            if args or kwargs:  # the parser's own call names the delimiter
                return original(text, *args, **kwargs)
            entries = original(text)
            agreed = list(takewhile(agree, entries))
            return agreed + [""] * (len(agreed) < len(entries))  # an entry that is not complete

        return split_top_level

    return make


PATCH = Patch(
    id="mlx_vlm.tool_parser",
    targets=tuple(
        f"{parser}:{name}"
        for parser in PARSERS
        for name in ("parse_tool_call", "_split_top_level", "_parse_object")
    ),
    apply=apply,
    probe=probe,
)
