"""Prompts with the same media have the same ids, and others do not."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4.media_ids import Seen
from mlx_gemma4_patches.gemma4.placeholders import Placeholders

_KNOWN = Placeholders(image=7, video=8, audio=9)
_IDS = [2, 5, 7, 7, 7, 7, 6, 5, 7, 7, 7, 7, 6, 3, 9, 9, 9, 9, 4]  # two pictures and a sound


def _inputs(first: float = 1.0, second: float = 2.0, sound: float = 3.0) -> dict:
    pictures = [mx.full((3, 4, 4), first), mx.full((3, 4, 2), second)]
    return {"pixel_values": pictures, "input_features": mx.full((1, 5, 2), sound)}


def _seen(ids: list[int] | None = None, **inputs) -> Seen:
    return Seen(ids or _IDS, {**_inputs(), **inputs}, _KNOWN)


def test_equal_media_have_equal_ids_and_text_keeps_its_own() -> None:
    made = _seen().ids
    assert made == _seen().ids
    places = [i for i, token in enumerate(made) if token < 0]
    assert places == [*range(2, 6), *range(8, 12), *range(14, 18)]
    assert [token for token in made if token >= 0] == [2, 5, 6, 5, 6, 3, 4]


@pytest.mark.parametrize(
    ("changed", "first"), [({"first": 0.0}, 2), ({"second": 0.0}, 8), ({"sound": 0.0}, 14)]
)
def test_other_media_differ_from_their_first_token_on(changed, first) -> None:
    made, other = _seen().ids, Seen(_IDS, _inputs(**changed), _KNOWN).ids
    pairs = enumerate(zip(made, other, strict=True))
    assert next(i for i, (a, b) in pairs if a != b) == first


def test_a_picture_beside_another_has_the_ids_that_it_has_alone() -> None:
    alone = Seen(_IDS[:7], {"pixel_values": mx.ones((1, 3, 4, 4))}, _KNOWN)
    assert _seen().ids[:7] == alone.ids


def test_media_behind_a_place_are_left() -> None:
    seen = _seen()
    assert len(seen.behind(0)["pixel_values"]) == len(seen.behind(2)["pixel_values"]) == 2
    assert [x.shape for x in seen.behind(7)["pixel_values"]] == [(3, 4, 2)]
    left = seen.behind(13)
    assert left["pixel_values"] is None
    assert left["input_features"].shape == (1, 5, 2)
    assert seen.behind(18) == {"pixel_values": None, "input_features": None}


def test_what_is_made_of_all_media_is_not_taken_for_those_that_are_left() -> None:
    seen = _seen(cached_image_features=mx.zeros((6, 2)))
    assert seen.behind(7)["cached_image_features"] is None


@pytest.mark.parametrize(
    "inputs",
    [
        {"pixel_values": mx.ones((1, 3, 4, 4))},  # one picture for two places
        {"pixel_values": None},
        {"input_features": mx.ones((2, 5, 2))},
        {"pixel_values_videos": mx.ones((1, 2, 3))},
    ],
)
def test_what_stands_where_must_be_known(inputs) -> None:
    with pytest.raises(ValueError):
        _seen(**inputs)


@pytest.mark.parametrize("count", [1, 3])
def test_a_medium_of_fewer_tokens_is_not_told_apart(count) -> None:
    with pytest.raises(ValueError, match=f"a medium of {count} soft tokens"):
        Seen([2, *[7] * count, 6], {"pixel_values": mx.ones((1, 3, 4, 4))}, _KNOWN)


def test_ids_are_those_of_int32_and_no_tokens() -> None:
    made = [token for token in _seen().ids if token < 0]
    assert len(set(made)) == len(made) and min(made) >= -(2**31)


def test_a_text_is_what_it_is() -> None:
    seen = Seen([2, 5, 6], {"pixel_values": None}, _KNOWN)
    assert seen.ids == [2, 5, 6]
    assert seen.behind(2) == {}
