"""Channel markup is taken out of a text, however the text is cut into parts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tool_calls
from mlx_gemma4_patches.gemma4.channels import END, RESPONSE, THOUGHT, Channels, Splitter

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


CALL = f"{tool_calls.START}call:f{{a:1}}{tool_calls.END}"


def split(parts, in_thought=False):
    splitter = Splitter(in_thought)
    pieces = [*map(splitter.feed, parts), splitter.finish()]
    return tuple("".join(column) for column in zip(*pieces, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello\n", ("", "Hello\n")),
        (f"{THOUGHT}\n hm\n{END}\nHi", ("hm", "Hi")),
        (f"{THOUGHT}\n{END}Hi", ("", "Hi")),
        (f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d", ("a\nc", "bd")),
        (f"{THOUGHT}\na\n{END}\nb\n{THOUGHT}\nc{END}\nd", ("a\n\nc", "b\n\nd")),
        (f"{THOUGHT}\ncut", ("cut", "")),
        (f"{RESPONSE}\nHi{END}", ("", "Hi")),
        (f"{THOUGHT}\nhm{RESPONSE}\nHi", ("hm", "Hi")),
        (f"{THOUGHT}\nhm{CALL}", ("hm", CALL)),
        (f"{THOUGHT}\nhm{END}Hi {CALL}{THOUGHT}\nx{END}", ("hm\nx", f"Hi {CALL}")),
        (CALL.replace("1", f"{THOUGHT}{END}"), ("", CALL.replace("1", f"{THOUGHT}{END}"))),
        ("a <|chan", ("", "a <|chan")),
        (f"{THOUGHT}\na <", ("a <", "")),
        ("<|channel>other\nHi", ("", "<|channel>other\nHi")),
    ],
)
def test_a_text_is_split(text, expected):
    assert split([text]) == expected


def test_a_text_may_begin_in_a_thought():
    assert split([f"hm{END}Hi"], in_thought=True) == ("hm", "Hi")
    assert split(["hm"], in_thought=True) == ("hm", "")


@given(
    st.lists(st.sampled_from([*FRAGMENTS, tool_calls.START, tool_calls.END])).map("".join),
    st.booleans(),
    st.data(),
)
def test_any_cut_is_split_the_same(text, in_thought, data):
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert split(pieces, in_thought) == split([text], in_thought)
