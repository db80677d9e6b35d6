"""Tool calls are cut at ``<tool_call|>`` in a string; the text around them is lost in streams.

What the user sees: a file that an agent writes ends where its text has ``<tool_call|>``. Up to
0.6.17 a stream ends with the first call: what the model says behind it is missing. Up to 0.7.3 a
stream shows nothing of a call that ``max_tokens`` cuts; from 0.7.8 on it ends in an error instead,
as it does at the string. What is no call after all, JSON for example, vanishes from streams.

Why: the server looks for the next end of a call and knows no strings. Old releases leave a stream's
content out from the first call to the end. New ones send arguments before the call is complete,
and give up where they turn out otherwise.

The fix: ``gemma4.tool_calls`` finds the calls, streamed or not. What cannot be read is content,
without markers, which would be tokens in the next prompt; a stream that has begun to send a call
that is cut ends as the answer does, "length" for example. A call that the turn ends in is made if
it is complete. Streams of 0.4.x show all markup and stay so. It can be deleted when mlx-vlm reads
calls with their strings and answers what it cannot read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ...gemma4.tool_calls import END, QUOTE, START, Reader
from ...hosts.mlx_vlm import last_token
from ...hosts.mlx_vlm.tool_calls import Answer, host_parser, without_markers
from ...patch import Finding, Patch
from ...surgery import Surgery
from ...targets import module_of

_STATE = "mlx_vlm.server.responses_state"
_PROCESS = (  # from 0.7.1, before, up to 0.5.0
    "mlx_vlm.tools.extractor:process_tool_calls",
    f"{_STATE}:process_tool_calls",
    "mlx_vlm.server:process_tool_calls",
)
_SPLIT = (  # both from 0.6.0, in 0.5.0
    f"{_STATE}:_split_thinking",
    "mlx_vlm.server.app:_split_thinking",
    "mlx_vlm.server:_split_thinking",
)
_SUPPRESS = (  # from 0.6.0 to 0.6.17, in 0.5.0
    f"{_STATE}:suppress_tool_call_content",
    "mlx_vlm.server:suppress_tool_call_content",
)
_GENERATE = {  # beside these
    _STATE: "mlx_vlm.server.generation:ResponseGenerator.generate",
    "mlx_vlm.server": "mlx_vlm.server:ResponseGenerator.generate",
}
_STREAM = f"{_STATE}:ToolCallStreamState"  # from 0.7.0
_DELTAS = "mlx_vlm.tools.streaming:ToolCallDeltaState"  # from 0.7.8

_BEGINS, _ENDS = "\ufdd0", "\ufdd1"  # Unicode's noncharacters, so in no text


def probe() -> Finding:
    from mlx_vlm import server

    parser = SimpleNamespace(
        tool_call_start=START,
        tool_call_end=END,
        parse_tool_call=lambda text, tools: {"name": "f", "arguments": text},
    )
    text = f"{START}call:f{{a:{QUOTE}x{END}y{QUOTE}}}{END}"
    lost = []
    if f"{END}y" not in str(server.process_tool_calls(text, parser, None)):
        lost.append(f"what follows {END} in a string")
    if stream := _stream_of_host():
        said = stream(f"Hi{START}call:f{{}}{END}there{START}{{}}{END}{START}call:g{{a:")
        lost += [repr(p) for p in ("Hi", "there", "{}", "call:g{a:") if p not in said]
    return Finding(
        bool(lost), f"lost: {', '.join(lost)}" if lost else "no call and no text is lost"
    )


def _stream_of_host() -> Callable[[str], str] | None:
    """What the host streams as content of a text; None where that is all of it."""
    from mlx_vlm import server

    with contextlib.suppress(ImportError):
        from mlx_vlm.server.responses_state import ToolCallStreamState

        return lambda text: ToolCallStreamState(START, END).feed(text, last=True) or ""
    suppress = getattr(server, "suppress_tool_call_content", None)
    if suppress is None:
        return None

    def stream(text: str) -> str:
        with last_token.at_hand():
            return suppress(text, False, START, text)[1] or ""

    return stream


def apply(surgery: Surgery) -> None:
    for places, make in (
        (_PROCESS, _by_our_reading),
        (_SPLIT, _without_markers),
        (_SUPPRESS, _by_our_reading_in_old_streams),
    ):
        for place in filter(surgery.targets.__contains__, places):
            if surgery.resolve(place).__module__ == module_of(place):  # not imported there
                surgery.wrap(place, make)
                if places is _SUPPRESS:
                    surgery.wrap(_GENERATE[module_of(place)], last_token.telling)
    if _STREAM in surgery.targets:
        surgery.wrap(f"{_STREAM}.feed", _by_our_reading_in_streams)
    if _DELTAS in surgery.targets:
        surgery.wrap(f"{_DELTAS}.feed", _up_to_end_in_string)
        surgery.wrap(f"{_DELTAS}.finish", _with_what_was_not_sent)


def _by_our_reading(original: Callable) -> Callable:
    def process_tool_calls(model_output, tool_module, tools):
        if tool_module.tool_call_start != START or START not in model_output:
            return original(model_output, tool_module, tools)
        parts = Answer(tool_module.parse_tool_call).feed(model_output, last=True)
        marked = "".join(
            content + "".join(f"{_BEGINS}{call}{_ENDS}" for call in calls)
            for content, calls in parts
        )
        parser = SimpleNamespace(
            tool_call_start=_BEGINS,
            tool_call_end=_ENDS,
            parse_tool_call=tool_module.parse_tool_call,
        )
        return original(marked, parser, tools)

    return process_tool_calls


def _without_markers(original: Callable) -> Callable:
    """Of content in which no call was found: with calls, it is made of the text around them."""

    def split_thinking(text, *args, **kwargs):
        reasoning, content = original(text, *args, **kwargs)
        if content and START in content:
            content = without_markers(content)
        return reasoning, content

    return split_thinking


def _streamed_answer() -> Answer:
    return Answer(host_parser().parse_tool_call)


def _by_our_reading_in_streams(original: Callable) -> Callable:
    def feed(self, text, last=False):
        if self.tc_start != START:
            return original(self, text, last)
        if not hasattr(self, "gemma4_answer"):
            self.gemma4_answer = _streamed_answer()
        return original(self, self.gemma4_answer.content(text or "", last), last)

    return feed


def _by_our_reading_in_old_streams(original: Callable) -> Callable:
    def suppress_tool_call_content(full_output, in_tool_call, tc_start, delta_content):
        in_call, content = original(full_output, in_tool_call, tc_start, delta_content)
        stream = last_token.take()
        if tc_start == START and stream is not None:
            stream.answer = stream.answer or _streamed_answer()
            content = stream.answer.content(delta_content or "", stream.is_at_last) or None
        return in_call, content

    return suppress_tool_call_content


def _up_to_end_in_string(original: Callable) -> Callable:
    """Of arguments as they come; ``finish`` gives the others."""

    def feed(self, text):
        if self.parser_name != "gemma4" or not text:
            return original(self, text)
        if not hasattr(self, "gemma4_reader"):
            self.gemma4_reader, self.gemma4_waits = Reader(lambda call: [call]), False
        _, calls = self.gemma4_reader.feed(text)
        self.gemma4_waits |= self.gemma4_reader.is_behind_end or any(END in c for c in calls)
        return [] if self.gemma4_waits else original(self, text)

    return feed


def _with_what_was_not_sent(original: Callable) -> Callable:
    def finish(self, calls):
        if self.parser_name != "gemma4":
            return original(self, calls)
        is_cut = 0
        if self.calls:
            last = max(self.calls)
            is_cut = not _goes_on(self.calls[last]["function"], calls[last : last + 1])
            if is_cut:
                del self.calls[last]
        made = {index: calls[index]["function"] for index in sorted(self.calls)}
        sent = [self._update(i, call["name"], call["arguments"]) for i, call in made.items()]
        rest = [{**call, "index": call["index"] + is_cut} for call in original(self, calls)]
        return [delta for delta in sent if delta] + rest

    return finish


def _goes_on(sent: dict[str, str], calls: list[dict[str, Any]]) -> bool:
    """Whether the call that a stream has begun to send is the one that was made in the end."""
    return any(
        call["function"]["name"] == sent["name"]
        and call["function"]["arguments"].startswith(sent["arguments"])
        for call in calls
    )


PATCH = Patch(
    id="mlx_vlm.tool_call_lost",
    targets=(*_PROCESS, *_SPLIT, *_SUPPRESS, _STREAM, _DELTAS),
    apply=apply,
    probe=probe,
)
