"""Of several tool calls one is made, and calls in unusual words are not made at all.

What the user sees: the model calls two tools and the answer holds one; a stream holds the first
one twice, at index 0. No call where a name or a key has - . or : in it, a key or a string stands in
JSON's quotes, or a string holds ``<tool_call|>``. A stream loses the text of a call that cannot be
read.

Why: the parser reads up to the first ``<tool_call|>``, turns the markup into JSON by regular
expressions that know word characters in names and keys, and tells a stream all the calls it sees
whenever one ends.

The fix: ``gemma4.tool_calls`` reads, each call once, and what it refuses is content. The forms that
only the host knows, such as ``call:f(a=1)``, stay the host's: such a call is made as soon as it is
complete, for the model may not mark its end. It can be deleted when vllm-mlx passes the probe. Up
to 0.4.1 the server does not ask a parser for the end of a stream: a call that ``max_tokens`` cuts
is missing in streams there. Upstream: waybarrios/vllm-mlx#268 (the parser).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from ...gemma4 import tool_calls
from ...gemma4.tool_calls import END, QUOTE, START, Reader, ToolCallError
from ...hosts.vllm_mlx.streams import Streams
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PARSER = "vllm_mlx.tool_parsers.gemma4_tool_parser:Gemma4ToolParser"
_WHOLE = f"{_PARSER}.extract_tool_calls"
_STREAMED = f"{_PARSER}.extract_tool_calls_streaming"
_RESULT = "vllm_mlx.tool_parsers.abstract_tool_parser:ExtractedToolCallInformation"
_TWO = f"{START}call:f{{a:1}}{END}{START}call:g{{}}{END}"
_CALLS = {
    _TWO: [("f", {"a": 1}), ("g", {})],
    f"{START}call:ns.get-it{{my-key:1}}{END}": [("ns.get-it", {"my-key": 1})],
    f'{START}call:f{{"a":"x, y"}}{END}': [("f", {"a": "x, y"})],
    f"{START}call:f{{{QUOTE}a{QUOTE}:1}}{END}": [("f", {"a": 1})],
    f"{START}call:f{{a:{QUOTE}{END}{QUOTE}}}{END}": [("f", {"a": END})],
}


_OF_HOST = re.compile(r"\s*call:\w+\s*\(.*\)\s*", re.DOTALL)


def probe() -> Finding:
    try:
        from vllm_mlx.tool_parsers.gemma4_tool_parser import Gemma4ToolParser
    except ImportError:
        raise NotApplicable("this vllm-mlx has no parser for Gemma 4") from None

    wrong = []
    for text, expected in _CALLS.items():
        made = Gemma4ToolParser(None).extract_tool_calls(text).tool_calls
        if [(call["name"], json.loads(call["arguments"])) for call in made] != expected:
            wrong.append(f"{len(made)} calls made of {text}")
    parser, text, made = Gemma4ToolParser(None), "", []
    for part in (_TWO[: -len(END)], END):
        delta = parser.extract_tool_calls_streaming(text, text + part, part) or {}
        made += [call["index"] for call in delta.get("tool_calls", ())]
        text += part
    if made != [0, 1]:
        wrong.append(f"a stream of two calls has those of index {made}")
    if wrong:
        return Finding(
            True, f"{len(wrong)} of {len(_CALLS) + 1} answers misread, such as: {wrong[0]}"
        )
    return Finding(False, f"all calls of {len(_CALLS)} answers and a stream are made")


def apply(surgery: Surgery) -> None:
    result = surgery.resolve(_RESULT)
    host = surgery.resolve(_WHOLE)

    def made_by_host(parser: Any, text: str) -> list[dict]:
        return host(parser, f"{START}{text}{END}").tool_calls

    def reader(parser: Any) -> Reader:
        return Reader(lambda text: _calls(text, made_by_host(parser, text)))

    def streams_of(parser: Any) -> Streams[_Stream]:
        made = functools.partial(made_by_host, parser)
        return Streams.of(parser, lambda text: _Stream(reader(parser), made, text))

    def make_whole(original: Callable) -> Callable:
        def extract_tool_calls(self, model_output, *args, **kwargs):
            if START not in model_output:
                return original(self, model_output, *args, **kwargs)
            whole = reader(self)
            text, calls = whole.feed(model_output)
            last_text, last_calls = whole.finish()
            text, calls = text + last_text, calls + last_calls
            return result(bool(calls), calls, text.strip() or None if calls else text)

        return extract_tool_calls

    def make_streamed(original: Callable) -> Callable:
        def extract_tool_calls_streaming(
            self, previous_text, current_text, delta_text, *args, **kwargs
        ):
            if not delta_text or START not in current_text:
                theirs = original(self, previous_text, current_text, delta_text, *args, **kwargs)
                if not delta_text or theirs != {"content": delta_text}:
                    return theirs
            streams = streams_of(self)
            stream = streams.take(previous_text)
            made = stream.feed(current_text[len(previous_text) :], current_text)
            streams.put(current_text, stream)
            # from 0.5.0 on: asks for the end even where there is content in the last delta
            self.REQUIRES_EAGER_STREAMING = stream.reader.is_holding
            return made

        return extract_tool_calls_streaming

    def finalize_streaming(self, current_text):
        stream = streams_of(self).take(current_text)
        return stream.delta(*stream.reader.finish())

    surgery.wrap(_WHOLE, make_whole)
    surgery.wrap(_STREAMED, make_streamed)
    surgery.add(f"{_PARSER}.finalize_streaming", finalize_streaming)


class _Stream:
    """One stream: its reader, and how many calls it was told.

    Args:
        made_by_host: what the host makes of what stands between two markers.
        text: what it was told already.
    """

    def __init__(self, reader: Reader, made_by_host: Callable[[str], list[dict]], text: str):
        self.reader = reader
        self._made_by_host = made_by_host
        self._made = 0
        self._ahead = 0  # of these, how many the reader has not come to the end of
        self.feed(text, text)

    def feed(self, part: str, text: str) -> dict[str, Any] | None:
        """What the server is told with the next part of ``text``, None for nothing."""
        content, calls = self.reader.feed(part)
        told = self.delta(content, calls)
        held = text.rpartition(START)[2]
        if told is None and self.reader.is_holding and not self._ahead and _OF_HOST.fullmatch(held):
            early = self._made_by_host(held)
            told = self.delta("", early)
            self._ahead = len(early)
        return told

    def delta(self, content: str, calls: list[dict]) -> dict[str, Any] | None:
        told: dict[str, Any] = {"content": content} if content else {}
        calls, self._ahead = calls[self._ahead :], max(self._ahead - len(calls), 0)
        if calls:
            told["tool_calls"] = [
                {
                    "index": index,
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for index, call in enumerate(calls, self._made)
            ]
            self._made += len(calls)
        return told or None


def _calls(text: str, theirs: list[dict]) -> list[dict]:
    """The calls in ``text``: those that the host makes of it, where they are the same."""
    try:
        ours = tool_calls.parse(text)
    except ToolCallError as error:
        if not error.calls and len(theirs) >= max(text.count("call:"), 1):
            return theirs  # a form that only the host knows
        error.calls = list(map(_written, error.calls))
        raise
    same = [{**call, "arguments": json.loads(call["arguments"])} for call in theirs]
    if ours == [{key: call[key] for key in ("name", "arguments")} for call in same]:
        return theirs
    return list(map(_written, ours))


def _written(call: dict[str, Any]) -> dict[str, str]:
    """A call as the host's parsers give it."""
    arguments = json.dumps(call["arguments"])
    return {"id": f"call_{uuid4().hex[:8]}", "name": call["name"], "arguments": arguments}


PATCH = Patch(
    id="vllm_mlx.tool_parser",
    targets=(_WHOLE, _STREAMED),
    apply=apply,
    probe=probe,
)
