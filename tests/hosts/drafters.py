"""How often drafters guess right in tests: whether the guess of the token at a place is right."""

from __future__ import annotations

from collections.abc import Callable

RIGHTNESS: dict[str, Callable[[int], bool]] = {
    "always right": lambda place: True,
    "right two times of three": lambda place: place % 3 > 0,
    "right every other time": lambda place: place % 2 > 0,
    "always wrong": lambda place: False,
}
