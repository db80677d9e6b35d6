"""vllm-mlx splits what Gemma 4 says into reasoning and answer as it is, streamed or not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4.channels import END, RESPONSE, THOUGHT
from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.reasoning_parser"

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.reasoning.gemma4_parser", reason="no parser for Gemma 4 in this vllm-mlx"
)


def parser():
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    made = Gemma4ReasoningParser()
    made.reset_state()
    return made


def whole(text):
    """Reasoning and content of a whole text."""
    return tuple(part or "" for part in parser().extract_reasoning(text))


def streamed(parts):
    """As ``whole``, of a stream."""
    reading, text, deltas = parser(), "", []
    for part in parts:
        deltas.append(reading.extract_reasoning_streaming(text, text + part, part))
        text += part
    if hasattr(reading, "finalize_stream"):
        deltas.append(reading.finalize_stream())
    return joined(deltas)


def joined(deltas):
    deltas = [delta for delta in deltas if delta]
    assert all(delta.reasoning or delta.content for delta in deltas)
    reasoning, content = (
        "".join(getattr(delta, name) or "" for delta in deltas) for name in ("reasoning", "content")
    )
    return reasoning.rstrip("\n"), content  # a stream is told of a newline before it is the last


class TestReasoningParser(PatchContract):
    id = ID

    def untouched(self):
        reading, text, seen = parser(), "", []
        for part in ("Hello", " there.\n", "  Bye"):
            delta = reading.extract_reasoning_streaming(text, text + part, part)
            text += part
            seen.append([delta.role, delta.reasoning, delta.content])
        for text in ("", "Hello\n", f"{THOUGHT}\nhm{END}Hi", f"hm{END}Hi"):
            seen.append(parser().extract_reasoning(text))
        return seen


CALL = call(f"a:{QUOTE}{END}{THOUGHT}{QUOTE}")
ANSWERS = {
    "Hello\n": ("", "Hello\n"),
    "response time": ("", "response time"),
    "thought": ("", "thought"),
    "    return 1": ("", "    return 1"),
    "a < b <| c": ("", "a < b <| c"),
    f"{THOUGHT}\nhm{END}response": ("hm", "response"),
    f"{THOUGHT}\nhm{END}thoughtful": ("hm", "thoughtful"),
    f"{THOUGHT}\nhm{END}    return 1\nresponse\n": ("hm", "    return 1\nresponse\n"),
    f"{THOUGHT}\nthought\nresponse{END}Hi": ("thought\nresponse", "Hi"),
    f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d": ("a\nc", "bd"),
    f"{THOUGHT}\nhm{RESPONSE}\nHi": ("hm", "Hi"),
    f"{THOUGHT}\nhm{RESPONSE}\nHi{END}!": ("hm", "Hi!"),
    f"{THOUGHT}\n{END}Hi": ("", "Hi"),
    f"{RESPONSE}\nHi": ("", "Hi"),
    f"{THOUGHT}\nhm": ("hm", ""),
    f"{THOUGHT}\nhm{END}thought\nHi": ("hm", "thought\nHi"),
    f"{THOUGHT}\nhm\n{END}Hi": ("hm", "Hi"),
    f"{THOUGHT}\nhm{END}{CALL}": ("hm", CALL),
    f"{THOUGHT}\nhm{CALL}{END}Hi": ("hm", f"{CALL}Hi"),
    CALL: ("", CALL),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_split_as_they_are(text):
    with patched(ID):
        assert whole(text) == ANSWERS[text]
        assert streamed(list(text)) == ANSWERS[text]
        assert streamed([text]) == ANSWERS[text]


def test_what_might_have_become_a_marker_is_not_lost():
    if not hasattr(parser(), "finalize_stream"):
        pytest.skip("0.2.8 asks nothing at the end of a stream")
    with patched(ID):
        for end in ("<", "<|chan", "<channel|", "<|tool_call"):
            assert streamed([f"{THOUGHT}\nhm{END}Hi", end]) == ("hm", f"Hi{end}")


def test_a_thought_that_the_prompt_opened_is_reasoning():
    with patched(ID):
        assert whole(f"hm{END}Sunny.") == ("hm", "Sunny.")
        assert whole(f"thought\nhm{END}Sunny.") == ("hm", "Sunny.")


def test_a_thought_without_a_marker_of_its_own_is_no_answer():
    with patched(ID):
        assert whole(f"{THOUGHT}\nhm\n{END}thought\n{END}thought\n{END}Hi") == ("hm", "Hi")


def test_what_is_not_there_is_none():
    with patched(ID):
        assert parser().extract_reasoning(f"{THOUGHT}\nhm") == ("hm", None)
        assert parser().extract_reasoning(f"{THOUGHT}\n{END}") == (None, None)
        assert parser().extract_reasoning("Hi") == (None, "Hi")


@given(
    st.lists(
        st.sampled_from([THOUGHT, RESPONSE, END, CALL, QUOTE, "\n", "<", "|>", "a", "thought"])
    ),
    st.data(),
)
def test_any_cut_of_a_stream_gives_the_same(fragments, data):
    # it begins with no END, as the prompt opened nothing, and ends in no beginning of a marker
    text = f"{THOUGHT}{''.join(fragments)}."
    assume(f"{END}thought\n{END}" not in text)  # of which a stream cannot know
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    with patched(ID):
        parts = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
        assert streamed(parts) == streamed(list(text)) == whole(text)


def test_streams_that_share_a_parser_do_not_disturb_each_other():
    """Up to 0.4.0 the server has one parser."""
    texts = [f"{THOUGHT}\nhm{n}{END}Hi{n}" for n in (1, 1, 2, 3)]
    shared, so_far, deltas = parser(), [""] * len(texts), [[] for _ in texts]
    with patched(ID):
        for i in range(max(map(len, texts))):
            shared.reset_state()  # as for a stream that begins now
            for n, text in enumerate(texts):
                part = text[i : i + 1]
                now = so_far[n] + part
                deltas[n].append(shared.extract_reasoning_streaming(so_far[n], now, part))
                so_far[n] = now
    assert list(map(joined, deltas)) == [(f"hm{n}", f"Hi{n}") for n in (1, 1, 2, 3)]


def test_without_the_patch_an_answer_with_several_markers_is_not_what_was_said():
    text = f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d"
    with stock(ID):
        assert whole(text) != ("a\nc", "bd")
        assert streamed([text]) != ("a\nc", "bd")
