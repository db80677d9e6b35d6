"""The text of a tool call that cannot be read is part of the answer of mlx-lm's server."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.gemma4 import tool_calls
from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_lm.tool_call_lost"
START = tool_calls.START

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"


class TestToolCallLost(PatchContract):
    id = ID

    def untouched(self):
        """Calls that can be read, and what another parser refuses."""
        from mlx_lm.server import ToolCallFormatter
        from mlx_lm.tool_parsers import gemma4, json_tools

        seen = []
        for parser, texts in (
            (gemma4.parse_tool_call, ["call:f{a:1}", "call:g{}"]),
            (json_tools.parse_tool_call, ['{"name": "f", "arguments": {}}', "no JSON"]),
        ):
            try:
                made = ToolCallFormatter(parser, None, streaming=True)(texts)
                seen.append([{**one, "id": None} for one in made])
            except ValueError as error:
                seen.append(repr(error))
        return seen


@pytest.mark.parametrize("rest", ["call:f{a:", 'call:f{a:<|"|>x', "call:", "call:f{a:1 b:2}"])
@pytest.mark.parametrize("before", ["", "Hi "])
def test_a_call_that_the_turn_ends_in_is_content(chat_server, before, rest):
    expected = {"content": before + rest, "finish_reason": "stop"}
    assert chat_server.both(before + START + rest) == expected


def test_a_call_that_max_tokens_cuts_is_content(chat_server):
    says = f"{START}call:f{{a:1,b:2}}"
    limit = len(chat_server.ids(f"{START}call:f{{a:1,"))
    expected = {"content": "call:f{a:1,", "finish_reason": "length"}
    assert chat_server.both(says, max_tokens=limit) == expected


def test_a_malformed_call_is_content_and_the_others_are_made(chat_server):
    assert chat_server.both(call("a:")) == {"content": "call:f{a:}", "finish_reason": "stop"}
    assert chat_server.both(f"{call('a:1')}{call('b:')}") == {
        "content": "call:f{b:}",
        "calls": [{"f": {"a": 1}}],
        "finish_reason": "tool_calls",
    }
    assert chat_server.both(f"{call('a:')} and {call('b:2')}!") == {
        "content": " and !call:f{a:}",
        "calls": [{"f": {"b": 2}}],
        "finish_reason": "tool_calls",
    }


def test_a_string_that_is_not_closed_ends_with_its_call(chat_server):
    says = f"{call(f'a:{QUOTE}x')}{call(f'b:{QUOTE}y{QUOTE}', 'g')}{call(f'c:{QUOTE}z')}Done"
    assert chat_server.both(says) == {
        "content": f"Donecall:f{{a:{QUOTE}x}}call:f{{c:{QUOTE}z}}",
        "calls": [{"g": {"b": "y"}}],
        "finish_reason": "tool_calls",
    }


def test_a_complete_call_that_the_turn_ends_in_is_made(chat_server):
    made = chat_server.both(f"{START}call:f{{a:1}}")
    assert made == {"content": None, "calls": [{"f": {"a": 1}}], "finish_reason": "tool_calls"}


def test_without_the_patch_it_is_lost(chat_server):
    with patched(ID):
        assert chat_server.answer(call("a:"))["content"] == "call:f{a:}"
    with stock(ID):
        assert "call:f" not in str(chat_server.answer(call("a:")))
