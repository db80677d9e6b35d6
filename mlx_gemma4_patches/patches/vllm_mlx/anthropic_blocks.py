"""A thought behind text breaks the Anthropic stream, and with it the tool calls that follow.

What the user sees: Gemma 4 says something, thinks, and calls a tool; Claude Code gets the call
without its arguments, and neither the thought nor the text behind it in its place.

Why: ``/v1/messages`` streams one block of thinking and then one of text. A thought behind text goes
to the block that is closed, or begins a second one with the index of the text; tools are numbered
as if it had not.

The fix: events get the block that they belong to, begun where it is not the open one, and its
index. It can be deleted when vllm-mlx does so. 0.2.7 streams no thoughts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any
from unittest import mock

from ...gemma4.channels import END, THOUGHT
from ...hosts.vllm_mlx import serving
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "vllm_mlx.server:_stream_anthropic_messages"
_BLOCK = "content_block_"
_BLOCKS = {
    "thinking_delta": {"type": "thinking", "thinking": ""},
    "text_delta": {"type": "text", "text": ""},
}


def probe() -> Finding:
    try:
        from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser
    except ImportError:
        raise NotApplicable("this vllm-mlx has no parser for Gemma 4") from None
    from vllm_mlx import server

    with mock.patch.object(server, "_reasoning_parser", Gemma4ReasoningParser()):
        events = serving.anthropic_stream(["Hi", THOUGHT, "\n", "hm", END, "!"], "stop")
    begun = [event for event in events if event["type"] == f"{_BLOCK}start"]
    blocks = [(event["index"], event["content_block"]["type"]) for event in begun]
    return Finding(
        blocks != [(0, "text"), (1, "thinking"), (2, "text")],
        f"text, a thought and text open the content blocks {blocks}",
    )


def apply(surgery: Surgery) -> None:
    def make(original: Callable) -> Callable:
        def _stream_anthropic_messages(*args, **kwargs):
            events = original(*args, **kwargs)
            parser = getattr(sys.modules["vllm_mlx.server"], "_reasoning_parser", None)
            if type(parser).__name__ != "Gemma4ReasoningParser":
                return events
            return _in_order(events)

        return _stream_anthropic_messages

    surgery.wrap(_TARGET, make)


async def _in_order(events: AsyncIterator[str]) -> AsyncIterator[str]:
    blocks = _Blocks()
    async with aclosing(events):
        async for event in events:
            for told in blocks.told(event):
                yield told


class _Blocks:
    """The blocks of one message, of which the last may be open."""

    def __init__(self):
        self._index = -1
        self._open: str | None = None

    def told(self, event: str) -> Iterator[str]:
        """What the client is told instead of an event."""
        try:
            data = json.loads(event.partition("\ndata: ")[2])
        except ValueError:
            data = {"type": ""}
        if data["type"] == f"{_BLOCK}start":
            yield from self._begin(data["content_block"])
        elif data["type"] == f"{_BLOCK}stop":
            yield from self._end()
        elif data["type"] == f"{_BLOCK}delta":
            block = _BLOCKS.get(data["delta"]["type"])
            if block and block["type"] != self._open:
                yield from self._begin(block)
            yield self._event("delta", delta=data["delta"])
        else:
            yield event

    def _begin(self, block: dict[str, Any]) -> Iterator[str]:
        yield from self._end()
        self._index += 1
        self._open = block["type"]
        yield self._event("start", content_block=block)

    def _end(self) -> Iterator[str]:
        if self._open:
            self._open = None
            yield self._event("stop")

    def _event(self, kind: str, **fields: Any) -> str:
        data = {"type": f"{_BLOCK}{kind}", "index": self._index, **fields}
        return f"event: {_BLOCK}{kind}\ndata: {json.dumps(data)}\n\n"


PATCH = Patch(id="vllm_mlx.anthropic_blocks", targets=(f"{_TARGET}()",), apply=apply, probe=probe)
