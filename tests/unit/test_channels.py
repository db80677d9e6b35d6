"""Channel markup is taken out of a text, however the text is cut into parts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4.channels import END, RESPONSE, THOUGHT, Channels, Turn
from mlx_gemma4_patches.gemma4.tool_calls import END as CALL_END
from mlx_gemma4_patches.gemma4.tool_calls import QUOTE, START

FRAGMENTS = [THOUGHT, RESPONSE, END, "\n", "<", "<|channel>", "|>", "a", "thought", "response", " "]
KINDS = ["normal", "reasoning", "tool", None]
texts = st.lists(
    st.tuples(st.sampled_from(KINDS), st.lists(st.sampled_from(FRAGMENTS)).map("".join)),
    max_size=5,
)


def taken(parts):
    """What comes of the parts, neighbours of one kind together."""
    channels = Channels()
    found = [piece for kind, text in parts for piece in channels.feed(kind, text)]
    together = []
    for kind, text in [*found, *channels.finish()]:
        if together and together[-1][0] == kind:
            together[-1] = (kind, together[-1][1] + text)
        else:
            together.append((kind, text))
    return [(kind, text) for kind, text in together if text]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("normal", "Hello\n")], [("normal", "Hello\n")]),
        ([("normal", "\nHello")], [("normal", "\nHello")]),
        ([("reasoning", "\nhmm\n"), ("normal", "Hi")], [("reasoning", "hmm\n"), ("normal", "Hi")]),
        ([("reasoning", "\n\nhmm")], [("reasoning", "\nhmm")]),
        ([("reasoning", "hmm")], [("reasoning", "hmm")]),
        ([("normal", RESPONSE + "\nHi" + END)], [("normal", "Hi")]),
        ([("normal", RESPONSE + "Hi")], [("normal", "Hi")]),
        (
            [("reasoning", f"\nhmm{RESPONSE}\nHi"), ("normal", " there")],
            [("reasoning", "hmm"), ("normal", "Hi there")],
        ),
        (
            [("reasoning", "\na"), ("normal", "b"), ("reasoning", "\nc")],
            [("reasoning", "a"), ("normal", "b"), ("reasoning", "\nc")],
        ),
        (
            [("normal", "a < b, a <| b, <|channel>other")],
            [("normal", "a < b, a <| b, <|channel>other")],
        ),
        ([("normal", "a <"), ("tool", "b")], [("normal", "a <"), ("tool", "b")]),
        ([("normal", "Hi<|channel>resp")], [("normal", "Hi")]),
        ([("normal", THOUGHT[:-1])], []),
        ([("reasoning", f"\na{THOUGHT}\nb")], [("reasoning", "a\nb")]),
        (
            [("reasoning", f"\na{RESPONSE}\nb{THOUGHT}\nc"), ("normal", "d")],
            [("reasoning", "a"), ("normal", "b"), ("reasoning", "\nc"), ("normal", "d")],
        ),
        ([("normal", f"{RESPONSE}{END}\na")], [("normal", "\na")]),
        ([("normal", "Hi <|chan")], [("normal", "Hi <|chan")]),
        (
            [("reasoning", "\n"), ("normal", "a"), ("reasoning", "\nb")],
            [("normal", "a"), ("reasoning", "b")],
        ),
        ([("tool", RESPONSE + "\n" + END)], [("tool", RESPONSE + "\n" + END)]),
    ],
)
def test_markup_goes_and_text_stays(parts, expected):
    assert taken(parts) == expected


@settings(deadline=None)
@given(texts, st.data())
def test_any_cut_of_the_text_gives_the_same(parts, data):
    cut = []
    for kind, text in parts:
        ends = sorted(data.draw(st.lists(st.integers(0, len(text)))))
        pieces = zip([0, *ends], [*ends, len(text)], strict=True)
        cut += [(kind, text[begin:end]) for begin, end in pieces]
    assert taken(cut) == taken(parts)


def said(parts, in_thought=False):
    """Reasoning and content of a turn in parts."""
    turn = Turn(in_thought)
    pairs = [*map(turn.feed, parts), turn.finish()]
    return tuple(map("".join, zip(*pairs, strict=True)))


CALL = f"{START}call:f{{a:{QUOTE}{END}{RESPONSE}{CALL_END}{QUOTE}}}{CALL_END}"


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("Hello\n", "", "Hello\n"),
        ("response time: a thought", "", "response time: a thought"),
        ("  a < b <| c", "", "  a < b <| c"),
        (f"{THOUGHT}\nhm{END}response", "hm", "response"),
        (f"{THOUGHT}\n  hm\n{END}    thought", "  hm\n", "    thought"),
        (f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d", "a\nc", "bd"),
        (f"{THOUGHT}\na{RESPONSE}\nb{THOUGHT}\nc{END}d", "a\nc", "bd"),
        (f"{THOUGHT}\n{END}Hi", "", "Hi"),
        (f"{RESPONSE}\nHi{END}!", "", "Hi!"),
        (f"{THOUGHT}\nhm", "hm", ""),
        (f"{THOUGHT}\nhm{END}{CALL} and {CALL}!", "hm", f"{CALL} and {CALL}!"),
        (f"{THOUGHT}\nhm{CALL}{END}Hi", "hm", f"{CALL}Hi"),
        (f"{START}call:f{{a:{QUOTE}{END}", "", f"{START}call:f{{a:{QUOTE}{END}"),
        (f"{CALL}{THOUGHT}\nhm{END}", "hm", CALL),
        (f"<|channel>th{START}x", "", f"{START}x"),
    ],
)
def test_a_turn_is_reasoning_and_content(text, reasoning, content):
    assert said([text]) == said(list(text)) == (reasoning, content)


def test_a_thought_that_the_prompt_opens_is_reasoning():
    assert said([f"hm{END}Sunny."], in_thought=True) == ("hm", "Sunny.")
    assert said(["hm", "m"], in_thought=True) == ("hmm", "")
    assert said([f"hm{CALL}"], in_thought=True) == ("hm", CALL)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*FRAGMENTS, START, CALL_END, QUOTE, "<|tool", CALL])),
    st.booleans(),
    st.data(),
)
def test_any_cut_of_a_turn_gives_the_same(fragments, in_thought, data):
    text = "".join(fragments)
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    cut = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
    assert said(cut, in_thought) == said(list(text), in_thought) == said([text], in_thought)
