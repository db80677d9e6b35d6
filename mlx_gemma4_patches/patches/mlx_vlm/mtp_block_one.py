"""With a drafter and a block of one token, an answer ends after its first token.

What the user sees: ``--draft-block-size 1`` gives one token, and no word about it.

Why: a block is the last token and the drafts behind it. One of a single token has no drafts, and
the loop of rounds ends where it should decode plainly.

The fix: a block of Gemma 4's drafters has at least one draft, so that the text is whole and that of
plain decoding. It can be deleted when mlx-vlm decodes on, or refuses such blocks.

Upstream: not reported yet.
"""

from __future__ import annotations

from ...gemma4 import tiny
from ...hosts.mlx_vlm.drafting import ASSISTANT, answer, drafter
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, Patch
from ...surgery import Surgery

_TOTAL = "mlx_vlm.speculative.mtp:_dflash_block_total"
_ROUNDS = ("mlx_vlm.generate:_mtp_rounds", "mlx_vlm.generate:_mtp_rounds_batch")  # 0.5.0


def probe() -> Finding:
    draft = drafter("dense")
    said = answer(model("dense"), tiny.prompt(4), 4, draft, drafts=0)
    return Finding(len(said) < 4, f"with blocks of one token {len(said)} tokens of 4 are said")


def apply(surgery: Surgery) -> None:
    if _TOTAL in surgery.targets:
        surgery.wrap(_TOTAL, _with_a_draft)
    else:
        for rounds in _ROUNDS:
            surgery.wrap(rounds, _rounds_with_a_draft)


def _with_a_draft(original):
    def _dflash_block_total(draft_model, draft_block_size):
        total = original(draft_model, draft_block_size)
        is_ours = type(draft_model).__module__.startswith(ASSISTANT)
        return max(total, 2) if is_ours else total

    return _dflash_block_total


def _rounds_with_a_draft(original):
    def rounds(*args, draft_block_size=None, **kwargs):
        if draft_block_size is not None:
            draft_block_size = max(draft_block_size, 2)
        return original(*args, draft_block_size=draft_block_size, **kwargs)

    return rounds


PATCH = Patch(
    id="mlx_vlm.mtp_block_one",
    targets=(
        f"{_TOTAL}(draft_model, draft_block_size)",
        *(f"{rounds}(*, draft_block_size)" for rounds in _ROUNDS),
    ),
    apply=apply,
    probe=probe,
)
