"""What Gemma 4 thinks about the result of a tool is streamed as the answer.

What the user sees: after a tool's result the thought comes as ``content``, up to where it ends.

Why: with thinking on, Google's template of July 2026 ends the prompt of such a turn inside of a
thought, so the model says nothing to begin one. vllm-mlx looks for such prompts, but knows
``<think>`` alone; without a stream it sees the end and takes what is before it for reasoning.

The fix: the stream of the engine begins with the marker that the template has written, which it
is asked with a conversation of three messages. It can be deleted when vllm-mlx looks for Gemma 4's
marker. Up to 0.3.0 the engines lose the calls of a conversation, and so no thought is opened.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ...gemma4.channels import THOUGHT
from ...patch import Finding, NotApplicable, Patch
from ...settings import log
from ...surgery import Surgery

_STREAMS = (
    "vllm_mlx.engine.batched:BatchedEngine.stream_chat",
    "vllm_mlx.engine.simple:SimpleEngine.stream_chat",
)
_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}
_CONVERSATION = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "so"},
]


def probe() -> Finding:
    if find_spec("vllm_mlx.engine.chat_template_safety") is None:
        raise NotApplicable("the engines of this vllm-mlx lose the calls of a conversation")
    from vllm_mlx import server
    from vllm_mlx.engine.batched import BatchedEngine
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    class Template:
        chat_template = "that opens a thought"

        def apply_chat_template(self, messages, **options):
            return f"{THOUGHT}\n"

    async def stream_generate(**options):
        for text in ("hm", "Hi"):
            yield SimpleNamespace(new_text=text)

    async def texts():
        engine = BatchedEngine.__new__(BatchedEngine)
        engine._loaded, engine._is_mllm, engine._model_name = True, False, ""
        engine._processor, engine._tokenizer = None, Template()
        engine._compute_prefix_boundary = lambda *args, **kwargs: 0
        engine.stream_generate = stream_generate
        return [output.new_text async for output in engine.stream_chat(_CONVERSATION)]

    with mock.patch.object(server, "_reasoning_parser", Gemma4ReasoningParser()):
        seen = asyncio.run(texts())
    return Finding(
        not seen[0].startswith(THOUGHT),
        f"a thought that the prompt opens is streamed as {seen[0]!r}",
    )


def apply(surgery: Surgery) -> None:
    for stream in _STREAMS:
        surgery.wrap(stream, _with_the_opened_thought)


def _with_the_opened_thought(original: Callable) -> Callable:
    async def stream_chat(self, messages, *args, **kwargs):
        opened = _opens_a_thought(self, messages, kwargs)
        async with aclosing(original(self, messages, *args, **kwargs)) as outputs:
            async for output in outputs:
                if opened and output.new_text:
                    opened = False
                    output.new_text = f"{THOUGHT}\n{output.new_text}"
                yield output

    return stream_chat


def _opens_a_thought(engine: Any, messages: list[dict], options: dict[str, Any]) -> bool:
    """Whether the prompt of a conversation ends inside of a thought, and somebody needs to know."""
    parser = getattr(sys.modules.get("vllm_mlx.server"), "_reasoning_parser", None)
    if type(parser).__name__ != "Gemma4ReasoningParser" or messages[-1].get("role") != "tool":
        return False
    asks = next((m for m in reversed(messages) if m.get("role") != "tool"), {})
    if not asks.get("tool_calls"):
        return False
    thinks = options.get("enable_thinking")
    given = {"enable_thinking": thinks is None or thinks}  # None: the host's default
    given.update(options.get("chat_template_kwargs") or {})
    try:
        prompt = engine.tokenizer.apply_chat_template(
            _CONVERSATION, **{**given, "tokenize": False, "add_generation_prompt": True}
        )
    except Exception as error:
        log.debug("a chat template that does not take a tool's result: %s", error)
        return False
    return prompt.rstrip().endswith(THOUGHT)


PATCH = Patch(id="vllm_mlx.opened_thought", targets=_STREAMS, apply=apply, probe=probe)
