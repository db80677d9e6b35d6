"""mlx-vlm's answers, as they come: how a text is cut into deltas changes nothing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tool_calls
from mlx_gemma4_patches.gemma4.channels import END as CHANNEL_END
from mlx_gemma4_patches.gemma4.channels import RESPONSE, THOUGHT
from mlx_gemma4_patches.gemma4.tool_calls import END, QUOTE, START
from mlx_gemma4_patches.hosts.mlx_vlm.tool_calls import Answer
from mlx_gemma4_patches.patches.mlx_vlm import thinking

FRAGMENTS = [START, END, QUOTE, THOUGHT, RESPONSE, CHANNEL_END, "call:f{a:", "call:g{}", "}"]
FRAGMENTS += ["\n", " ", "<", "|>", "a", "{}"]
texts = st.lists(st.sampled_from(FRAGMENTS)).map("".join)


def parts(text, data):
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    return [text[begin:end] for begin, end in itertools.pairwise(cuts)]


def shown(deltas):
    answer = Answer(lambda text, tools: tool_calls.parse(text))
    return "".join([*map(answer.content, deltas), answer.content("", last=True)])


def test_a_call_whose_end_comes_in_two_parts_stands_between_what_is_around_it():
    call = f"{START}call:g{{}}{END}"
    assert shown([f"a{call[:-4]}", f"{call[-4:]}b"]) == shown([f"a{call}b"]) == "a b"


@given(texts, st.data())
def test_any_cut_of_an_answer_shows_the_same_content(text, data):
    assert shown(parts(text, data)) == shown(list(text)) == shown([text])


def split(deltas, in_thought):
    answer = thinking._Answer(in_thought)
    pairs = [*map(answer.feed, deltas), answer.finish()]
    return tuple(map("".join, zip(*pairs, strict=True)))


@given(texts, st.booleans(), st.data())
def test_any_cut_of_an_answer_has_the_same_thoughts(text, in_thought, data):
    deltas = parts(text, data)
    expected = split([text], in_thought)
    assert split(deltas, in_thought) == split(list(text), in_thought) == expected
    reasoning, content = expected
    assert reasoning == reasoning.strip() and content == content.lstrip("\n")
