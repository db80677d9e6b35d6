"""Where prompts of Gemma 4 can part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4.prefix_cuts import (
    CHANNEL_ID,
    RESPONSE_END_ID,
    TURN_ID,
    cuts,
    last_asked,
    shared,
)

_SYSTEM, _USER, _MODEL = 301, 302, 303
_SYSTEM_TURN = [TURN_ID, _SYSTEM, 7, 7, 106]
_ASKED = [TURN_ID, _USER, 8, 8, 106]
_ANSWERED = [TURN_ID, _MODEL, 9, 9, 106]
_OPEN = [TURN_ID, _MODEL]


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        # after the system prompt, and before the last token
        ([[2], _SYSTEM_TURN, _ASKED, _OPEN], [6, 12]),
        # without a system prompt there is nothing before the first question but <bos>
        ([[2], _ASKED, _OPEN], [1, 7]),
        # before the last question
        ([[2], _SYSTEM_TURN, _ASKED, _ANSWERED, _ASKED, _OPEN], [6, 16, 22]),
        # before the empty thought of the generation prompt
        ([[2], _ASKED, _OPEN, [CHANNEL_ID, 5, 101]], [1, 8]),
        # before the thought that the prompt opens behind a tool's result
        ([[2], _ASKED, _OPEN, [48, 49, 50, RESPONSE_END_ID, CHANNEL_ID, 5]], [1, 12]),
        # behind it there is none, whatever was thought before
        ([[2], _ASKED, _OPEN, [CHANNEL_ID, 5, 101, 48, 49, 50, RESPONSE_END_ID, 4]], [1, 15]),
        # a text without turns
        ([[2, 7, 7, 7]], [3]),
        ([[2]], []),
        ([[]], []),
    ],
)
def test_a_prompt_is_cut_where_the_next_may_part_from_it(parts, wanted) -> None:
    assert cuts([token for part in parts for token in part]) == wanted


@given(st.lists(st.sampled_from([TURN_ID, CHANNEL_ID, RESPONSE_END_ID, -(2**70), 2**70, 1])))
def test_any_ids_are_cut_within_them(ids) -> None:
    found = cuts(ids)
    assert found == sorted(set(found))
    assert all(0 < cut < len(ids) for cut in found)
    assert 0 <= last_asked(ids) <= len(ids)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_what_is_shared_leaves_a_token_of_each(left, right) -> None:
    length = shared(left, right)
    assert left[:length] == right[:length]
    limit = min(len(left), len(right)) - 1
    assert length == max(0, limit) or left[length] != right[length]
