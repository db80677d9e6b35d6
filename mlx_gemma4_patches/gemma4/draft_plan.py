"""How many tokens to draft next: as many as asked for, and none while drafting loses.

A step that verifies drafts takes longer than one that reads a single token, and gives more tokens
if they are accepted. Which is faster depends on the machine, the model, and the text; so it is
measured, over the last steps of either kind. While plain steps give more tokens a second, the
drafter is left aside; later it is tried again, and each time it loses it is left aside for longer.
``MLX_GEMMA4_PATCHES_DRAFT_ALWAYS=1`` drafts on whatever it costs.
"""

from __future__ import annotations

import os
from collections import deque
from statistics import median

from .. import ON
from ..settings import PREFIX, log

ALWAYS = f"{PREFIX}_DRAFT_ALWAYS"

_TRIED = 16  # steps with drafts that a judgement is made of
_PLAIN = 8  # plain steps that it is compared with
_ASIDE, _LONGEST = 64, 1024  # plain steps before the next try


class DraftPlan:
    """The plan for one text.

    Args:
        most: tokens to draft in a step.
    """

    def __init__(self, most: int):
        self._most = most
        self._always = os.environ.get(ALWAYS, "").strip().lower() in ON
        self._with: deque[tuple[int, float]] = deque(maxlen=_TRIED)  # tokens and seconds of a step
        self._without: deque[tuple[int, float]] = deque(maxlen=_PLAIN)
        self._aside = 0  # plain steps to come
        self._next_aside = _ASIDE
        self._drafted = self._accepted = self._steps = self._tokens = 0

    def drafts(self) -> int:
        """Tokens to draft in the next step."""
        return 0 if self._aside else self._most

    def record(self, drafted: int, accepted: int, seconds: float) -> None:
        """What a step took, and what it gave: the accepted drafts and one token more."""
        self._drafted += drafted
        self._accepted += accepted
        self._steps += 1
        self._tokens += accepted + 1
        (self._with if drafted else self._without).append((accepted + 1, seconds))
        if self._aside:
            self._aside -= 1
            if self._aside == 0:
                self._judge()
        elif len(self._with) == _TRIED:
            self._judge()

    def _judge(self) -> None:
        if self._always:
            return
        if len(self._with) < _TRIED:  # it has been left aside, and is to be tried again
            return
        if _tokens(self._with) >= _TRIED * (1 + self._most / 2):
            return  # half of all drafts accepted
        if len(self._without) < _PLAIN:
            self._aside = _PLAIN
            return
        faster = _rate(self._without) / _rate(self._with)
        if faster <= 1:
            self._next_aside = _ASIDE
            return
        log.info(
            "the drafter is left aside for %d tokens: %.2f tokens a step with it, and %.0f %% of "
            "the speed without",
            self._next_aside,
            _tokens(self._with) / len(self._with),
            100 / faster,
        )
        self._aside = self._next_aside
        self._next_aside = min(2 * self._next_aside, _LONGEST)
        self._with.clear()

    def __str__(self) -> str:
        steps = max(self._steps, 1)
        return (
            f"drafts: {self._drafted}, accepted: {self._accepted}, "
            f"{self._tokens / steps:.2f} tokens a target step"
        )


def _tokens(steps: deque[tuple[int, float]]) -> int:
    return sum(tokens for tokens, _ in steps)


def _rate(steps: deque[tuple[int, float]]) -> float:
    """Tokens a second; of the seconds the median, as the first step of a kind may compile."""
    return _tokens(steps) / len(steps) / max(median(seconds for _, seconds in steps), 1e-9)
