"""A limit on thinking is not kept, and tears answers that hold a >.

What the user sees: with ``thinking_budget`` Gemma 4 thinks for as long as it likes. If there is a
``>`` in the prompt or, on later releases, in the answer, a line break and another ``>`` come into
the answer, after as many tokens as the thought was to have.

Why: mlx-vlm looks for ``<think>`` and ``</think>``. Gemma 4 has no such tokens, and the last of the
pieces that its tokenizer makes of them, ``>``, is taken for both. Clients can name Gemma 4's own
markers; then a thought of an earlier turn counts as the beginning of one, and where there is none
in the prompt older releases keep no limit at all.

The fix: a tokenizer with Gemma 4's markers is asked for those, where those given are no tokens of
its own. An answer begins in a thought only where the prompt has opened one, which the server alone
can tell. The server of 0.5.0 limits the thoughts of no model. It can be deleted when mlx-vlm knows
Gemma 4's markers and looks at the last of them in the prompt.

Upstream: not reported yet.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ...gemma4.channels import END, END_ID, OPENING, OPENING_ID, opens_thought
from ...patch import Finding, Patch
from ...surgery import Surgery

_BUDGET = "mlx_vlm.utils:ThinkingBudgetCriteria"
_INIT, _RESET = f"{_BUDGET}.__init__", f"{_BUDGET}.reset_thinking_state"
_SERVED = "mlx_vlm.server.generation:ResponseGenerator._make_thinking_budget_criteria"
_GREATER, _WORD, _NEWLINE = 7, 8, 9  # of the probe's tokenizer


def probe() -> Finding:
    from mlx_vlm.utils import ThinkingBudgetCriteria

    def forced(*said: int) -> list[int]:
        """The tokens that a limit of two tokens puts behind those said, by their places."""
        budget = ThinkingBudgetCriteria(
            SimpleNamespace(encode=_encode), 2, "</think>", "<think>", enable_thinking=True
        )
        return [at for at, token in enumerate(said) if budget(token) is not None]

    thought = forced(OPENING_ID, *[_WORD] * 5)
    answer = forced(_WORD, _GREATER, *[_WORD] * 5)
    return Finding(
        thought != [3, 4] or answer != [],
        f"a thought of 5 tokens is ended behind {thought or 'none'}, for a limit of 2; "
        f"an answer is cut into behind {answer or 'none'}",
    )


def _encode(text: str, add_special_tokens: bool = True) -> list[int]:
    own = {OPENING: OPENING_ID, END: END_ID, "\n": _NEWLINE}
    return [own[text]] if text in own else [_WORD, _GREATER]


def apply(surgery: Surgery) -> None:
    surgery.wrap(_INIT, _with_gemma4s_markers)
    surgery.wrap(_RESET, _outside_of_thoughts)
    if _SERVED in surgery.targets:
        surgery.wrap(_SERVED, _in_the_prompts_thought)


def _with_gemma4s_markers(original: Callable) -> Callable:
    def __init__(
        self,
        tokenizer,
        thinking_budget,
        thinking_end_token="</think>",
        thinking_start_token=None,
        *others,
        **named,
    ):
        if is_gemma4 := _id_of(tokenizer, OPENING) == OPENING_ID:
            if _id_of(tokenizer, thinking_start_token) is None:
                thinking_start_token = OPENING
            if _id_of(tokenizer, thinking_end_token) is None:
                thinking_end_token = END
        original(
            self,
            tokenizer,
            thinking_budget,
            thinking_end_token,
            thinking_start_token,
            *others,
            **named,
        )
        if is_gemma4:
            self.enable_thinking = True  # older releases: where the prompt has an opening marker
            self.prompt_preopens_thinking = self.in_thinking = False

    return __init__


def _id_of(tokenizer: Any, text: str | None) -> int | None:
    """The id of the one token that ``text`` is, if it is one."""
    ids = tokenizer.encode(text, add_special_tokens=False) if text else []
    return ids[0] if len(ids) == 1 else None


def _outside_of_thoughts(original: Callable) -> Callable:
    def reset_thinking_state(self):
        original(self)
        if self.thinking_start_token_id == OPENING_ID:
            self.in_thinking = self.prompt_preopens_thinking

    return reset_thinking_state


def _in_the_prompts_thought(original: Callable) -> Callable:
    def _make_thinking_budget_criteria(self, args, input_ids):
        budget = original(self, args, input_ids)
        if budget is not None and budget.thinking_start_token_id == OPENING_ID:
            opened = opens_thought(mx.flatten(input_ids).tolist())
            budget.prompt_preopens_thinking = budget.in_thinking = opened
        return budget

    return _make_thinking_budget_criteria


PATCH = Patch(
    id="mlx_vlm.thinking_budget",
    targets=(_INIT, _RESET, _SERVED),
    apply=apply,
    probe=probe,
)
