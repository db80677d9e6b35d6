"""An Anthropic stream that max_tokens has cut short says that it is complete.

What the user sees: with Claude Code an answer ends in the middle of a sentence, a thought or a tool
call, and nothing continues it.

Why: a stream of ``/v1/messages`` ends with the ``stop_reason`` "tool_use" or "end_turn"; why the
engine ended is not looked at. Without a stream it is "max_tokens".

The fix: a stream says "max_tokens" instead of "end_turn" where the engine says "length". It can be
deleted when vllm-mlx does so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from ...hosts.vllm_mlx import serving
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "vllm_mlx.server:_stream_anthropic_messages"


def probe() -> Finding:
    events = serving.anthropic_stream(["Hi"], "length")
    reason = next(e["delta"]["stop_reason"] for e in events if e["type"] == "message_delta")
    return Finding(
        reason != "max_tokens", f"a stream cut by max_tokens ends with stop_reason {reason}"
    )


def apply(surgery: Surgery) -> None:
    def make(original: Callable) -> Callable:
        def _stream_anthropic_messages(engine, *args, **kwargs):
            if not is_gemma4(engine):
                return original(engine, *args, **kwargs)
            heard = _Heard(engine)
            return _with_its_reason(original(heard, *args, **kwargs), heard)

        return _stream_anthropic_messages

    surgery.wrap(_TARGET, make)


class _Heard:
    """An engine for one stream, and why that ended."""

    def __init__(self, engine: Any):
        self._engine = engine
        self.reason: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def stream_chat(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with aclosing(self._engine.stream_chat(*args, **kwargs)) as outputs:
            async for output in outputs:
                self.reason = getattr(output, "finish_reason", None)
                yield output


async def _with_its_reason(events: AsyncIterator[str], heard: _Heard) -> AsyncIterator[str]:
    async with aclosing(events):
        async for event in events:
            if heard.reason == "length" and event.startswith("event: message_delta\n"):
                event = event.replace('"stop_reason": "end_turn"', '"stop_reason": "max_tokens"')
            yield event


PATCH = Patch(
    id="vllm_mlx.anthropic_stop_reason", targets=(f"{_TARGET}(engine)",), apply=apply, probe=probe
)
