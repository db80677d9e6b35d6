"""mlx-vlm's server gives reasoning, content and calls of Gemma 4 without markup, and whole."""

from __future__ import annotations

import contextvars

import pytest

from mlx_gemma4_patches.gemma4.channels import END, RESPONSE, THOUGHT
from tests.hosts.chat import call
from tests.hosts.contract import PatchContract, patched, skip_unless_needed, stock
from tests.hosts.mlx_vlm_chat import splits_streams_well

ID = "mlx_vlm.thinking"

pytest.importorskip("mlx_vlm.models.gemma4")

pytest_plugins = "tests.hosts.mlx_vlm_chat"

if HAS_STATE := splits_streams_well():
    from mlx_vlm.server import responses_state as host

STOP = {"finish_reason": "stop"}
ANSWERS = {
    "Hi": {"content": "Hi", **STOP},
    "a < b": {"content": "a < b", **STOP},
    "thought of": {"content": "thought of", **STOP},
    "<|channel>other\nHi": {"content": "<|channel>other\nHi", **STOP},
    f"{THOUGHT}\nhm\n{END}Hi": {"reasoning": "hm", "content": "Hi", **STOP},
    f"{THOUGHT}\n\nhm{END}\nHi": {"reasoning": "hm", "content": "Hi", **STOP},
    f"{THOUGHT}\n{END}Hi": {"content": "Hi", **STOP},
    f"{THOUGHT}{END}Hi": {"content": "Hi", **STOP},
    f"{THOUGHT}\ncut": {"reasoning": "cut", **STOP},
    f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d": {"reasoning": "a\nc", "content": "bd", **STOP},
    f"{THOUGHT}\n{END}{THOUGHT}\nc{END}d": {"reasoning": "c", "content": "d", **STOP},
    f"{RESPONSE}\nHi": {"content": "Hi", **STOP},
    f"{RESPONSE}\nHi{END}": {"content": "Hi", **STOP},
    f"{THOUGHT}\nhm{END}{RESPONSE}\nHi": {"reasoning": "hm", "content": "Hi", **STOP},
    f"{THOUGHT}\nhm{RESPONSE}\nHi": {"reasoning": "hm", "content": "Hi", **STOP},
    f"{THOUGHT}\na{THOUGHT}\nb{END}c <": {"reasoning": "a\nb", "content": "c <", **STOP},
    f"{THOUGHT}\nhm{END}{call('a:1')}": {
        **{"reasoning": "hm", "calls": [{"f": {"a": 1}}]},
        "finish_reason": "tool_calls",
    },
    f"{THOUGHT}\nhm {call('a:1')}": {
        **{"reasoning": "hm", "calls": [{"f": {"a": 1}}]},
        "finish_reason": "tool_calls",
    },
}


class TestThinking(PatchContract):
    id = ID

    def untouched(self):
        """Answers of other models, and of a Gemma 4 nothing is known of."""
        # in a context that no test before has made a prompt in
        return contextvars.Context().run(self.answers) if HAS_STATE else None

    def answers(self):
        seen = []
        for text in (
            "<think>\nhm\n</think>\n\nHi\n",
            "<think>a</think>b<think>c</think>d",
            "hm</think>Hi",
            "Hi",
            f"{THOUGHT}\nhm{END}Hi{THOUGHT}",
        ):
            seen.append(host._split_thinking(text))
            for opened in (False, True):
                state = host.ThinkingStreamState(opened)
                deltas = [state.feed(part) for part in (text, *text)]
                seen += [[d.reasoning, d.content, d.thinking_closed] for d in deltas]
                seen.append(state.in_thinking)
        return seen


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


@pytest.fixture
def chat(mlx_vlm_chat):
    if not HAS_STATE:
        pytest.skip("this mlx-vlm splits no thoughts, or in the middle of a request")
    return mlx_vlm_chat


@pytest.mark.parametrize("thinks", [False, True], ids=["", "enable_thinking"])
@pytest.mark.parametrize("says", ANSWERS)
def test_answers_are_without_markup_and_whole(chat, says, thinks):
    parameters = {"enable_thinking": True} if thinks else {}
    assert chat.both(says, **parameters) == ANSWERS[says]


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (f"hm{END}Sunny.", {"reasoning": "hm", "content": "Sunny."}),
        (f"hm{RESPONSE}\nSunny.", {"reasoning": "hm", "content": "Sunny."}),
        (f"a{END}b{THOUGHT}\nc{END}d", {"reasoning": "a\nc", "content": "bd"}),
        ("cut", {"reasoning": "cut"}),
    ],
)
def test_a_thought_that_the_prompt_opens_is_reasoning(chat, says, expected):
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]  # fmt: skip
    made = chat.both(says, history, enable_thinking=True)
    assert made == {**expected, **STOP}


def test_without_the_patch_a_second_thought_is_content(chat):
    skip_unless_needed(ID)
    says = f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d"
    with stock(ID):
        assert "<|channel>thought" in chat.stream(says)["content"]
