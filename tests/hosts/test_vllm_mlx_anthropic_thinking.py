"""An Anthropic client of vllm-mlx decides whether Gemma 4 thinks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4 import channels
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.anthropic_thinking"

pytest.importorskip("vllm_mlx")

ENABLED = {"type": "enabled", "budget_tokens": 1024}
DISABLED = {"type": "disabled"}


def told(channel=channels.OPENING_ID, **fields):
    """What the chat template is told, by the engine of a model whose <|channel> has that id."""
    from vllm_mlx import server
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest

    if not hasattr(server, "_prepare_anthropic_invocation"):
        pytest.skip("the Anthropic endpoint of this vllm-mlx tells a chat template nothing")
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda token: channel)
    engine = SimpleNamespace(tokenizer=tokenizer, preserve_native_tool_format=False)
    request = AnthropicRequest(
        model="m", max_tokens=1, messages=[{"role": "user", "content": "Hi"}], **fields
    )
    prepared = server._prepare_anthropic_invocation(engine, anthropic_to_openai(request), 1)
    return prepared.chat_kwargs.get("chat_template_kwargs")


class TestAnthropicThinking(PatchContract):
    id = ID

    def untouched(self):
        from vllm_mlx import server

        if not hasattr(server, "_prepare_anthropic_invocation"):
            return []
        return [
            told(),
            told(chat_template_kwargs={"enable_thinking": False, "a": 1}),
            told(thinking=None),
            told(thinking={"type": "unheard of"}),
            told(channel=3, thinking=ENABLED),  # another model
            told(channel=3, thinking=DISABLED, chat_template_kwargs={"a": 1}),
        ]


@pytest.mark.parametrize(
    ("thinking", "expected"), [(ENABLED, True), ({"type": "adaptive"}, True), (DISABLED, False)]
)
def test_the_template_is_told(thinking, expected):
    with patched(ID):
        assert told(thinking=thinking) == {"enable_thinking": expected}
        options = {"a": 1}
        both = told(thinking=thinking, chat_template_kwargs=options)
        assert both == {"a": 1, "enable_thinking": expected}
        assert options == {"a": 1}


def test_what_the_request_tells_the_template_itself_counts():
    with patched(ID):
        options = {"enable_thinking": False}
        assert told(thinking=ENABLED, chat_template_kwargs=options) == options


def test_without_the_patch_it_is_not_told():
    with stock(ID):
        assert not told(thinking=DISABLED)
