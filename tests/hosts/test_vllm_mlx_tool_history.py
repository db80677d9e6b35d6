"""vllm-mlx gives a conversation with tool calls to Gemma 4's template as it is."""

from __future__ import annotations

import json

import pytest

from mlx_gemma4_patches import matrix, registry
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.tool_history"

pytest.importorskip("vllm_mlx")
if not matrix.load().rows[ID].is_faulty(registry.installed_versions()):
    pytest.skip("this vllm-mlx has no way to", allow_module_level=True)

ARGUMENTS = {"1": {"a": 1}, "2": {"b": "x"}}
CALLS = [
    {"id": i, "type": "function", "function": {"name": "f", "arguments": json.dumps(arguments)}}
    for i, arguments in ARGUMENTS.items()
]
HISTORY = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": CALLS[:1]},
    {"role": "assistant", "content": "And this.", "tool_calls": CALLS[1:]},
    {"role": "tool", "tool_call_id": "1", "content": "warm"},
    {"role": "tool", "tool_call_id": "2", "content": "dry"},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "Thanks."},
    {"role": "user", "content": "Bye."},
]


def shown(history, monkeypatch, parser="gemma4", is_mllm=False):
    """The messages that the chat template gets, by a server with a parser for tool calls."""
    from types import SimpleNamespace

    from vllm_mlx import server
    from vllm_mlx.api.models import Message

    monkeypatch.setattr(server, "_enable_auto_tool_choice", True)
    monkeypatch.setattr(server, "_tool_call_parser", parser)
    engine = SimpleNamespace(
        is_mllm=is_mllm, preserve_native_tool_format=server._detect_native_tool_support()
    )
    return server._prepare_chat_messages(engine, [Message(**message) for message in history])[0]


class TestToolHistory(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _server(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def untouched(self):
        """Conversations without calls, and those of other models."""
        plain = [HISTORY[0], *HISTORY[-3:], {"role": "developer", "content": "Be nice."}]
        return [
            shown(history, self.monkeypatch, parser, is_mllm)
            for history, parser in ((plain, "gemma4"), (HISTORY, "hermes"), ([], "gemma4"))
            for is_mllm in (False, True)
        ]


@pytest.mark.parametrize("is_mllm", [False, True])
def test_calls_and_results_are_shown_as_they_are(monkeypatch, is_mllm):
    with patched(ID):
        seen = shown(HISTORY, monkeypatch, is_mllm=is_mllm)
    calls = [call for message in seen for call in message.get("tool_calls", ())]
    assert {call["id"]: json.loads(as_json(call)) for call in calls} == ARGUMENTS
    results = {m["tool_call_id"]: m["content"] for m in seen if m["role"] == "tool"}
    assert results == {"1": "warm", "2": "dry"}
    assert seen[-1]["content"] == "Thanks.\n\nBye."


def as_json(call):
    """The multimodal engines get the client's JSON and read it themselves."""
    arguments = call["function"]["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def test_calls_of_several_messages_are_one_to_which_all_results_belong(monkeypatch):
    with patched(ID):
        seen = shown(HISTORY, monkeypatch)
    assert [message["role"] for message in seen] == [
        *("user", "assistant", "tool", "tool", "assistant", "user")
    ]
    assert seen[1]["content"] == "Let me see.\n\nAnd this."
    assert [call["id"] for call in seen[1]["tool_calls"]] == ["1", "2"]


def test_results_in_parts_are_text(monkeypatch):
    parts = [{"type": "text", "text": text} for text in ("warm", "dry")]
    result = {"role": "tool", "tool_call_id": "1", "content": parts}
    with patched(ID):
        assert shown([*HISTORY[:2], result], monkeypatch)[-1]["content"] == "warm\ndry"


def call_of(arguments):
    function = {"name": "f", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


STRANGE = {
    "a result of no call": [call_of("{}"), {**HISTORY[3], "tool_call_id": "9"}],
    "a result that names no call": [call_of("{}"), {"role": "tool", "content": "warm"}],
    "a result before all calls": [HISTORY[3]],
    "arguments that are a list": [call_of("[1]"), HISTORY[3]],
    "arguments that are cut": [call_of('{"a'), HISTORY[3]],
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("is_mllm", [False, True])
def test_what_templates_raise_on_is_shown_as_without_the_patch(monkeypatch, strange, is_mllm):
    history = [HISTORY[0], *strange, HISTORY[-1]]
    with patched(ID):
        seen = shown(history, monkeypatch, is_mllm=is_mllm)
    with stock(ID):
        assert seen == shown(history, monkeypatch, is_mllm=is_mllm)


def test_what_is_strange_leaves_the_rest_as_it_is(monkeypatch):
    with patched(ID):
        seen = shown([*HISTORY[:1], *STRANGE["a result of no call"], *HISTORY], monkeypatch)
    assert [call["id"] for message in seen for call in message.get("tool_calls", ())] == ["1", "2"]


def test_without_the_patch_calls_are_text(monkeypatch):
    with stock(ID):
        assert "[Calling tool: " in str(shown(HISTORY, monkeypatch))
