"""mlx-lm's server gives reasoning, content and calls of Gemma 4 without markup, and whole."""

from __future__ import annotations

import importlib
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4.channels import END, RESPONSE, THOUGHT
from mlx_gemma4_patches.gemma4.tool_calls import END as CALL_END
from mlx_gemma4_patches.gemma4.tool_calls import START
from mlx_gemma4_patches.hosts.mlx_lm.chat import tokenizer
from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_lm.channel_leak"

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"

MARKERS = (THOUGHT, RESPONSE, END, START, CALL_END, QUOTE)
STOP = {"finish_reason": "stop"}
TOOL_CALLS = {"finish_reason": "tool_calls"}
ANSWERS = {
    "Hi": {"content": "Hi", **STOP},
    "\na < b <| c\n": {"content": "\na < b <| c\n", **STOP},
    "<|channel>other\nHi": {"content": "<|channel>other\nHi", **STOP},
    f"{THOUGHT}\nhm\n{END}Hi": {"reasoning": "hm\n", "content": "Hi", **STOP},
    f"{THOUGHT}\n\nhm{END}\nHi": {"reasoning": "\nhm", "content": "\nHi", **STOP},
    f"{THOUGHT}\n{END}Hi": {"content": "Hi", **STOP},
    f"{THOUGHT}{END}Hi": {"content": "Hi", **STOP},
    f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d": {"reasoning": "a\nc", "content": "bd", **STOP},
    f"{THOUGHT}\n{END}{THOUGHT}\nc{END}d": {"reasoning": "c", "content": "d", **STOP},
    f"{RESPONSE}\nHi": {"content": "Hi", **STOP},
    f"{RESPONSE}\nHi{END}": {"content": "Hi", **STOP},
    f"{THOUGHT}\nhm{END}{RESPONSE}\nHi": {"reasoning": "hm", "content": "Hi", **STOP},
    f"{THOUGHT}\nhm{RESPONSE}\nHi": {"reasoning": "hm", "content": "Hi", **STOP},
    f"{THOUGHT}\nhm{RESPONSE}\nHi{END}!": {"reasoning": "hm", "content": "Hi!", **STOP},
    f"{THOUGHT}\na{THOUGHT}\nb{END}c": {"reasoning": "a\nb", "content": "c", **STOP},
    f"{THOUGHT}\na{RESPONSE}\nb{THOUGHT}\nc{END}d": {
        **{"reasoning": "a\nc", "content": "bd"},
        **STOP,
    },
    f"{THOUGHT}\nhm{RESPONSE}\nHi {call('a:1')}": {
        **{"reasoning": "hm", "content": "Hi ", "calls": [{"f": {"a": 1}}]},
        **TOOL_CALLS,
    },
    call(f"a:{QUOTE}x{CALL_END}{START}{QUOTE},b:{QUOTE}{QUOTE},c:1"): {
        **{"content": None, "calls": [{"f": {"a": f"x{CALL_END}{START}", "b": "", "c": 1}}]},
        **TOOL_CALLS,
    },
    call(f"a:{QUOTE}{CALL_END}{QUOTE}") + call(f"a:{QUOTE}{RESPONSE}{QUOTE}") + "Hi": {
        **{"content": "Hi", "calls": [{"f": {"a": CALL_END}}, {"f": {"a": RESPONSE}}]},
        **TOOL_CALLS,
    },
}


class TestChannelLeak(PatchContract):
    id = ID

    def untouched(self):
        """Of another model: what its machine makes of everything that is special here."""
        host = importlib.import_module("mlx_lm.generate")
        seen = []
        if hasattr(host, "SequenceStateMachine"):
            machine = host.SequenceStateMachine(
                {
                    "normal": [((7,), "reasoning"), ((48,), "tool"), ((1,), None)],
                    "reasoning": [((8,), "normal"), ((1,), None)],
                    "tool": [((49,), "normal"), ((1,), None)],
                }
            )
            state = machine.make_state()
            for token in (5, 7, 107, 100, 300, 8, 101, 100, 301, 48, 52, 49, 52, 5, 49, 5, 1):
                state, *made = machine.match(state, token)
                seen.append(made)
            return seen
        machine = host.TextStateMachine(
            {
                "normal": [("<think>", "reasoning"), (START, "tool")],
                "reasoning": [("</think>", "normal")],
                "tool": [(CALL_END, "normal")],
            }
        )
        text = f"a<think>\nb{RESPONSE}\n</think>{END}{RESPONSE}c{START}{QUOTE}{CALL_END}{QUOTE}d"
        return [read(machine, [text]), read(machine, list(text))]


def read(machine, deltas):
    """Names and texts, as the server puts together what a machine makes of deltas."""
    state = machine.make_state()
    segments = []
    for delta in deltas:
        if hasattr(machine, "split"):
            state, made = machine.split(state, delta)
            segments += made
        else:
            state, text, name = machine.step(state, delta)
            segments.append((name, text))
    _, rest, last = machine.flush(state)
    found = {}
    for name, text in [*segments, (last, rest)]:
        found[name] = found.get(name, "") + text
    return {name: text for name, text in found.items() if text}


@pytest.mark.parametrize("says", ANSWERS)
def test_answers_are_without_markup_and_whole(chat_server, says):
    assert chat_server.both(says) == {"content": None, **ANSWERS[says]}


def test_answers_at_once_are_those_of_each_alone(chat_server):
    with ThreadPoolExecutor(len(ANSWERS)) as pool:
        made = list(pool.map(chat_server.answer, ANSWERS))
    assert made == [{"content": None, **answer} for answer in ANSWERS.values()]


def test_a_request_that_is_served_alone_is_answered_the_same(chat_server):
    for says, answer in ANSWERS.items():
        made = chat_server.answer(
            says, seed=1
        )  # keeps it out of the batch: its tokens go another way
        assert made == {"content": None, **answer}, says


def test_a_thought_that_the_prompt_opens_is_reasoning(chat_server):
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]  # fmt: skip
    made = chat_server.both(
        f"hm{END}Sunny.", history, chat_template_kwargs={"enable_thinking": True}
    )
    assert made == {"reasoning": "hm", "content": "Sunny.", **STOP}


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*MARKERS, "\n", "<", "|>", "a", "thought", "call:f{", "}"])),
    st.data(),
)
def test_any_cut_of_a_text_into_deltas_gives_the_same(parts, data):
    host = importlib.import_module("mlx_lm.generate")
    if not hasattr(host, "TextStateMachine"):
        pytest.skip("this release splits tokens, which nothing cuts")
    has_segments = hasattr(host.TextStateMachine, "split")
    text = "".join(part for part in parts if part != "<" or has_segments)
    cuts = {0, len(text), *data.draw(st.lists(st.integers(0, len(text))))}
    if not has_segments:  # a delta is of one state there, and so is what was held back before it
        for marker in re.finditer("|".join(map(re.escape, MARKERS)), text):
            cuts.update(marker.span())
    cuts = sorted(cuts)
    deltas = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
    with patched(ID):
        machine = host.make_text_state_machine(tokenizer())
        assert read(machine, deltas) == read(machine, list(text))


def test_without_the_patch_markup_shows(chat_server):
    with patched(ID):
        assert chat_server.answer(f"{RESPONSE}\nHi", stop=["patched"])["content"] == "Hi"
    with stock(ID):
        assert chat_server.answer(f"{RESPONSE}\nHi", stop=["stock"])["content"] == f"{RESPONSE}\nHi"
