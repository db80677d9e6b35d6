"""A question about ``<|image|>`` ends in an error, or puts an image where there is none.

What the user sees: 500 without a reason for a text that holds the marker beside an image; without
one, a place in the prompt that stands for no image. Whoever writes a text decides what is a marker.

Why: texts of messages are rendered as they are, and the tokenizer takes what they hold for markers.

The fix: for Gemma 4 a marker of media in the text of a message gets a space behind its "<". It can
be deleted when the host tokenizes texts without their special tokens.
"""

from __future__ import annotations

from types import SimpleNamespace

from ...gemma4 import channels
from ...gemma4.written_markers import escaped
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PREPARE = "vllm_mlx.server:_prepare_chat_messages"


def probe() -> Finding:
    from vllm_mlx import server

    if not hasattr(server, "_prepare_chat_messages"):
        raise NotApplicable("this vllm-mlx prepares each kind of request by itself")
    engine = SimpleNamespace(
        is_mllm=True,
        tokenizer=SimpleNamespace(convert_tokens_to_ids=lambda _: channels.OPENING_ID),
    )
    said = {"role": "user", "content": [{"type": "text", "text": "what is <|image|>"}]}
    messages, *_ = server._prepare_chat_messages(engine, [said])
    count = str(messages).count("<|image|>")
    return Finding(count > 0, f"a text with a marker has {count} markers")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPARE, _with_texts_as_texts)


def _with_texts_as_texts(original):
    def _prepare_chat_messages(engine, request_messages):
        messages, *media = original(engine, request_messages)
        return (escaped(messages) if is_gemma4(engine) else messages, *media)

    return _prepare_chat_messages


PATCH = Patch(id="vllm_mlx.placeholder_text", targets=(_PREPARE,), apply=apply, probe=probe)
