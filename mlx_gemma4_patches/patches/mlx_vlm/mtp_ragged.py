"""With a drafter, prompts of unequal length that are answered together are answered wrongly.

What the user sees: with ``--draft-model`` of kind "mtp" and two requests at once, other words than
without, from the third or fourth on. mlx-vlm 0.6.0 raises instead: "'list' object has no attribute
'max'".

Why: the rows of a batch accept different numbers of drafts, and go on so. Keys and values of the
drafts that a row rejects are set to zero, and stay where the row attends to them.

The fix: all rows accept as many drafts as the one that accepts fewest, which the host can do for
other drafters, and does for these from 0.7.0 on. 0.5.0 cannot: there what its walk over the rows
accepts is cut, in the rounds of these drafters alone. It can be deleted when no supported release
is older.

Upstream: mlx-vlm 0.7.0 (``requires_uniform_batch_acceptance`` of its Gemma 4).
"""

from __future__ import annotations

import inspect
import threading

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.drafting import ASSISTANT, answer, answers, drafter, knowing
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, Patch
from ...surgery import Surgery

_DRAFTER = f"{ASSISTANT}.gemma4_assistant:Gemma4AssistantDraftModel"
_ROLLBACK = "mlx_vlm.models.gemma4.language:LanguageModel.rollback_speculative_cache"
_UNIFORM = "requires_uniform_batch_acceptance"
_ROUNDS = "mlx_vlm.generate:_mtp_rounds_batch"  # 0.5.0
_WALK = "mlx_vlm.generate:_speculative_walk_batch"


def probe() -> Finding:
    target, draft = model("dense"), drafter("dense")
    prompts = [tiny.prompt(11), tiny.prompt(24)]
    plain = [answer(target, prompt, 10) for prompt in prompts]
    texts = [prompt + said for prompt, said in zip(prompts, plain, strict=True)]
    try:
        said = answers(target, prompts, 6, knowing(draft, texts, lambda place: place % 3 > 0))
    except AttributeError as error:
        return Finding(True, f"two prompts with a drafter fail: {error}")
    wrong = sum(row != alone[:6] for row, alone in zip(said, plain, strict=True))
    return Finding(wrong > 0, f"of two prompts with a drafter {wrong} are answered otherwise")


def apply(surgery: Surgery) -> None:
    if _ROUNDS in surgery.targets:
        surgery.wrap(_ROUNDS, _in_step)
        surgery.wrap(_WALK, _cut)
    else:
        surgery.add(f"{_DRAFTER}.{_UNIFORM}", True)
        surgery.wrap(_ROLLBACK, _taking_lists)


_here = threading.local()


def _in_step(original):
    def _mtp_rounds_batch(*args, **kwargs):
        rounds = original(*args, **kwargs)
        while True:
            _here.in_step = True
            try:
                said = next(rounds, None)
            finally:
                _here.in_step = False
            if said is None:
                return
            yield said

    return _mtp_rounds_batch


def _cut(original):
    def _speculative_walk_batch(*args, **kwargs):
        accepted, tokens = original(*args, **kwargs)
        if getattr(_here, "in_step", False):
            fewest = min(accepted)
            accepted, tokens = [fewest] * len(accepted), [row[: fewest + 1] for row in tokens]
        return accepted, tokens

    return _speculative_walk_batch


def _taking_lists(original):
    signature = inspect.signature(original)

    def rollback_speculative_cache(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        if isinstance(call.arguments["accepted"], list):  # which 0.6.0 passes, and does not take
            call.arguments["accepted"] = mx.array(call.arguments["accepted"])
        return original(*call.args, **call.kwargs)

    return rollback_speculative_cache


PATCH = Patch(
    id="mlx_vlm.mtp_ragged",
    targets=(_DRAFTER, _ROLLBACK, _ROUNDS, f"{_WALK}(draft_tokens, target_tokens, budgets)"),
    apply=apply,
    probe=probe,
)
