"""Soft tokens of sounds and pictures, against transformers' counts."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.gemma4 import soft_tokens
from tests.hosts.hearing import reference
from tests.reference.conversations import LENGTHS, SIZES


def test_sounds_have_as_many_as_in_transformers() -> None:
    assert [soft_tokens.of_sound(n) for n in LENGTHS] == reference()["sound_tokens"].tolist()


def test_sounds_of_the_12b_have_as_many_as_in_transformers() -> None:
    counts = [soft_tokens.of_sound_unified(n) for n in LENGTHS]
    assert counts == reference()["unified_sound_tokens"].tolist()


@pytest.mark.parametrize("place, budget", list(enumerate(soft_tokens.BUDGETS)))
def test_pictures_have_as_many_as_in_transformers(place: int, budget: int) -> None:
    counts = [soft_tokens.of_picture(*size, budget) for size in SIZES]
    assert counts == reference()["picture_tokens"][place].tolist()


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a picture of"):
        soft_tokens.of_picture(*size)
