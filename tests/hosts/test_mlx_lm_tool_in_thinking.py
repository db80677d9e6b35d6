"""A tool that Gemma 4 calls in the middle of a thought is called."""

from __future__ import annotations

import importlib

import pytest

from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"

CALLS = {"content": None, "calls": [{"f": {"a": "x"}}], "finish_reason": "tool_calls"}


class TestToolInThinking(PatchContract):
    id = "mlx_lm.tool_in_thinking"

    def untouched(self):
        """Of another model: the ids of its markers, and what a machine of them makes of all."""
        host = importlib.import_module("mlx_lm.generate")
        if not hasattr(host, "SequenceStateMachine"):
            return None
        machine = host.SequenceStateMachine(
            {
                "normal": [((7,), "reasoning"), ((48,), "tool"), ((1,), None)],
                "reasoning": [((8,), "normal"), ((1,), None)],
                "tool": [((49,), "normal"), ((1,), None)],
            }
        )
        state, seen = machine.make_state(), []
        for token in (5, 7, 5, 48, 49, 8, 48, 5, 49, 5, 1):
            state, *made = machine.match(state, token)
            seen.append(made)
        return seen


def test_a_call_in_a_thought_is_made(chat_server):
    made = chat_server.both(f"<|channel>thought\nI will {call(f'a:{QUOTE}x{QUOTE}')}")
    assert made == {**CALLS, "reasoning": made["reasoning"]}
    assert made["reasoning"].strip() == "I will"


def test_calls_in_and_behind_a_thought_are_made_in_order(chat_server):
    made = chat_server.both(f"<|channel>thought\nfirst{call('a:1')}then {call('b:2')}")
    assert made["calls"] == [{"f": {"a": 1}}, {"f": {"b": 2}}]
    assert made["reasoning"].strip() == "first"
    assert made["content"] == "then "


def test_a_call_in_a_thought_that_the_prompt_opens_is_made(chat_server):
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]  # fmt: skip
    says = f"once more {call(f'a:{QUOTE}x{QUOTE}')}"
    made = chat_server.both(says, history, chat_template_kwargs={"enable_thinking": True})
    assert made == {**CALLS, "reasoning": "once more "}
