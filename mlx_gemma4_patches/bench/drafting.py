"""mlx-lm with an assistant: tokens a step of the target, and the time of a token.

The assistants are random, and are told what to guess: one always the right token, one never. Their
own guesses are made all the same, for what they cost. The one that is never right is left aside as
it would be in a chat (``gemma4.draft_plan``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..hosts.mlx_lm.speculation import View
from .comparing import compare

TABLE = "an assistant, mlx-lm"
TOKENS, DRAFTS = 128, 3


def run(rounds: int = 5) -> Iterator[dict[str, Any]]:
    """Two rows for each assistant; none where the host takes no assistant."""
    from ..gemma4 import tiny
    from ..hosts.mlx_lm.tiny import assistant, text_model

    model, prompt = text_model("e2b"), tiny.prompt(40)
    try:
        draft = assistant("e2b")  # known once its model's code is imported
    except ValueError:
        return
    text = prompt + _said(model, prompt, TOKENS + DRAFTS + 1)
    alone = partial(_per_token, model, prompt, None)
    own = draft.draft
    for how, shift in (("always", 0), ("never", 1)):
        draft.draft = partial(_told, own, text, shift)
        helped = partial(_per_token, model, prompt, draft)
        columns = ("alone", f"with one that is {how} right")
        for what, unit, count in (("tokens a target step", "", 1), ("a token", "ms", rounds)):
            measures = (partial(measure, unit) for measure in (alone, helped))
            yield compare(TABLE, what, unit, *measures, count, columns)


def _said(model: Any, prompt: list[int], count: int) -> list[int]:
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    return [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=count)]


def _told(own: Any, text: list[int], shift: int, *given: Any) -> Any:
    """``Model.draft`` of an assistant that is told the text, or other tokens than the text's."""
    import mlx.core as mx

    *_, position, count = given
    following = mx.array(text[position + 1 : position + 1 + count]) + shift
    return following + 0 * own(*given).astype(following.dtype)


def _per_token(model: Any, prompt: list[int], draft: Any, unit: str) -> float:
    """Tokens a step of the target, or seconds a token, behind the first."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step, speculative_generate_step

    target = _Counted(model)
    how = {"num_draft_tokens": DRAFTS} if draft else {}
    generate = speculative_generate_step if draft else generate_step
    models = (target, draft) if draft else (target,)
    steps = generate(mx.array(prompt), *models, max_tokens=TOKENS + 1, **how)
    next(steps)
    before, start = target.calls, time.perf_counter()
    count = len(list(steps))
    if unit:
        return (time.perf_counter() - start) / count
    return count / (target.calls - before)


class _Counted(View):
    """A model whose calls are counted."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().__call__(*args, **kwargs)
