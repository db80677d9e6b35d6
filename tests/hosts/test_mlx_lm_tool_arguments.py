"""A conversation goes on behind a tool call, in whatever form a client sends its arguments."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.hosts.mlx_lm.chat import tokenizer
from mlx_gemma4_patches.patches.mlx_lm.tool_arguments import tokenize
from tests.hosts.contract import PatchContract

NONE = ["", " ", "null", None, "{}", {}]
SOME = ['{"a": {"b": [1, null]}}', {"a": {"b": [1, None]}}]

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"


class TestToolArguments(PatchContract):
    id = "mlx_lm.tool_arguments"

    def untouched(self):
        """What other models are shown, and Gemma 4 of what is right."""
        seen = [tokenize(tokenizer(), {"arguments": SOME[0]})]
        for arguments in (*NONE, *SOME):
            try:
                seen.append(tokenize(tokenizer(gemma4=False), {"arguments": arguments}))
            except (TypeError, ValueError) as error:
                seen.append(repr(error))
        return seen


def history(function):
    return [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", **function}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]


def test_the_conversation_goes_on_without_arguments(chat_server):
    functions = [{}, *({"arguments": arguments} for arguments in NONE)]
    replies = [chat_server.reply("Ok", history(function)) for function in functions]
    assert [reply["choices"][0]["message"]["content"] for reply in replies] == ["Ok"] * len(replies)
    assert len({reply["usage"]["prompt_tokens"] for reply in replies}) == 1


def test_an_object_and_its_json_give_the_same_prompt(chat_server):
    one, other = (chat_server.reply("Ok", history({"arguments": arguments})) for arguments in SOME)
    assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
    without = chat_server.reply("Ok", history({"arguments": "{}"}))
    assert one["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]


def test_arguments_that_are_no_json_are_refused_in_words(chat_server):
    assert "Expecting" in chat_server.answer("Ok", history({"arguments": "{bad"}))["error"]
