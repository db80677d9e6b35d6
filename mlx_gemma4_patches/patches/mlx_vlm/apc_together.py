"""Requests that find their beginnings in the prefix cache together take each other's answers.

What the user sees: with ``APC_ENABLED=1``, of requests that reach the server at the same time one
begins with a wrong token and goes on from there. Alone each is right.

Why: what is left of the prompts is padded on the right and read in chunks. The logits of a row are
taken from the last chunk, at its end less the padding; a row that has ended in an earlier chunk
gets those of another place. Up to 0.6.17 there are chunks past ``prefill_step_size`` and where a
snapshot for the cache is taken, on 0.7.0 always.

The fix: such rows are read in one chunk where they fit into ``prefill_step_size``, without the
snapshots on the way; longer ones start afresh, as rows do of which none is known. It can be deleted
when no supported release is older than 0.7.1, where every row ends a chunk.

Upstream: Blaizzy/mlx-vlm#1960 (merged, in 0.7.0) made it worse; repaired in 0.7.1.
"""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.tiny import model, processor
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_BUILD = "mlx_vlm.generate:BatchGenerator._build_mixed_prompt_batch"
_STEP = "mlx_vlm.generate:PromptProcessingBatch.prompt_step"


def probe() -> Finding:
    try:
        from mlx_vlm.apc import APCManager
    except ImportError:
        raise NotApplicable("this mlx-vlm has no prefix cache") from None
    made, manager = model("dense"), APCManager(num_blocks=4)
    known, new = tiny.prompt(40), tiny.prompt(48, seed=1)
    first_tokens(made, [known, known], manager)  # 0.6.0 keeps nothing of a single prompt
    said = first_tokens(made, [known, new], manager)
    alone = first_tokens(made, [known], None) + first_tokens(made, [new], None)
    wrong = sum(one != other for one, other in zip(said, alone, strict=True))
    return Finding(wrong > 0, f"{wrong} of 2 answers begin with a wrong token")


def first_tokens(made: Any, rows: list[list[int]], manager: Any) -> list[int]:
    """What a ``BatchGenerator`` says first to prompts of token ids that arrive together."""
    generator = importlib.import_module("mlx_vlm.generate").BatchGenerator(
        made.language_model, processor(), apc_manager=manager, compute_logprobs=False
    )
    embedded = [made.get_input_embeddings(mx.array([row]), None).to_dict() for row in rows]
    said = dict.fromkeys(generator.insert(rows, 1, prompt_kwargs=embedded))
    while generator.has_work:
        said |= {part.uid: int(part.token) for part in generator.next()[1]}
    return list(said.values())


def apply(surgery: Surgery) -> None:
    surgery.wrap(_BUILD, in_one_chunk)


def in_one_chunk(original):
    def _build_mixed_prompt_batch(self, sequences):
        batch = original(self, sequences)
        if not any(getattr(batch, "_right_pad_per_row", None) or ()):
            return batch
        if not batch.needs_processing():
            return batch
        step = batch.prefill_step_size
        if step is not None and batch._inputs_embeds.shape[1] > step:
            batch._release_apc_meta_blocks()
            return None
        batch.prefill_step_size = None
        for row in batch._apc_meta:
            row["checkpoint_done"] = True
        return batch

    return _build_mixed_prompt_batch


PATCH = Patch(id="mlx_vlm.apc_together", targets=(_BUILD, _STEP), apply=apply, probe=probe)
