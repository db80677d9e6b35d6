"""What a server of this host serves."""

from __future__ import annotations

import asyncio
import inspect
import json
from types import SimpleNamespace
from typing import Any

from ...gemma4 import channels


def anthropic_stream(texts: list[str], finish_reason: str) -> list[dict[str, Any]]:
    """The data of the events of ``/v1/messages`` where a Gemma 4 says ``texts``."""
    from vllm_mlx import server
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest

    async def stream_chat(**options):
        for number, text in enumerate(texts, 1):
            is_last = number == len(texts)
            reason = finish_reason if is_last else None
            yield SimpleNamespace(new_text=text, finished=is_last, finish_reason=reason)

    async def events():
        asked = {"role": "user", "content": "Hi"}
        request = AnthropicRequest(model="m", max_tokens=8, messages=[asked])
        # some releases take one of these
        given = {"max_tokens": 8, "prepared": SimpleNamespace(messages=[asked], chat_kwargs={})}
        known = inspect.signature(server._stream_anthropic_messages).parameters
        made = server._stream_anthropic_messages(
            SimpleNamespace(
                stream_chat=stream_chat,
                preserve_native_tool_format=False,
                tokenizer=SimpleNamespace(convert_tokens_to_ids=lambda _: channels.OPENING_ID),
            ),
            anthropic_to_openai(request),
            request,
            *(value for name, value in given.items() if name in known),
        )
        return [json.loads(event.partition("\ndata: ")[2]) async for event in made]

    return asyncio.run(events())
