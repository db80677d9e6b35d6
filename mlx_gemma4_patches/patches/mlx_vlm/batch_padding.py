"""``batch_generate`` with prompts of different lengths: only the longest is answered rightly.

What the user sees: the shorter a prompt beside the longest of its batch, the more nonsense is its
answer, or there is none.

Why: the tokenizer fills the shorter prompts up on the left and says so in an attention mask, which
goes no further. The generator is given rows of one length, finds nothing to pad and attends to the
padding.

The fix: a generator of Gemma 4 is given the prompts without their padding. It pads them itself, and
knows where. It can be deleted when no supported release is older than 0.6.15.

Upstream: Blaizzy/mlx-vlm#1946 (merged, in 0.6.15), #1951 (merged, in 0.7.0).
"""

from __future__ import annotations

import inspect
from typing import Any

from ...gemma4 import config, tiny
from ...hosts.mlx_vlm.tiny import model, processor
from ...patch import Finding, Patch
from ...surgery import Surgery

_GENERATOR = "mlx_vlm.generate:BatchGenerator"
_INSERT = f"{_GENERATOR}.insert"
_PROCESS = f"{_GENERATOR}._process_prompts"  # before 0.5.0
_GENERATE = ("mlx_vlm.generate:_generate_batch", "mlx_vlm.generate.ar:_generate_batch")
# what a prompt comes with that has one entry a token, (1, tokens, ...)
_PER_TOKEN = ("inputs_embeds", "per_layer_inputs", "mm_token_type_ids")


def probe() -> Finding:
    from mlx_vlm import batch_generate

    made, how = (model("dense"), processor()), {"max_tokens": 2, "verbose": False}
    prompts = [" ".join(map(str, tiny.prompt(length))) for length in (5, 20)]
    together = batch_generate(*made, prompts=prompts, **how).texts
    alone = [batch_generate(*made, prompts=[prompt], **how).texts[0] for prompt in prompts]
    wrong = sum(one != other for one, other in zip(together, alone, strict=True))
    return Finding(wrong > 0, f"{wrong} of 2 prompts are answered otherwise than alone")


def apply(surgery: Surgery) -> None:
    if "prompt_kwargs" in inspect.signature(surgery.resolve(_INSERT)).parameters:
        surgery.wrap(_INSERT, _insert)
    else:
        surgery.wrap(_PROCESS, _process_prompts)


def _insert(original):
    def insert(self, prompts, max_tokens=None, prompt_kwargs=None, *rest, **named):
        padding = _padding(self, prompts)
        if any(padding):
            rows = list(zip(padding, prompts, prompt_kwargs or [{}] * len(prompts), strict=True))
            prompts = [ids[n:] for n, ids, _ in rows]
            prompt_kwargs = [_without(n, len(ids), given) for n, ids, given in rows]
        return original(self, prompts, max_tokens, prompt_kwargs, *rest, **named)

    return insert


def _without(padding: int, length: int, given: dict[str, Any]) -> dict[str, Any]:
    """What a prompt of ``length`` ids comes with, without that of its padding."""
    return {
        name: value[:, padding:]
        if name in _PER_TOKEN and value is not None and value.shape[1] == length
        else value
        for name, value in given.items()
    }


def _process_prompts(original):
    def process_prompts(self, prompts, **kwargs):
        padding = _padding(self, [ids for _, ids, _ in prompts])
        prompts = [
            (uid, ids[n:], limit) for n, (uid, ids, limit) in zip(padding, prompts, strict=True)
        ]
        return original(self, prompts, **kwargs)

    return process_prompts


def _padding(generator: Any, rows: list[list[int]]) -> list[int]:
    """How many ids of padding each prompt begins with."""
    if getattr(generator.model, "model_type", None) not in config.MODEL_TYPES:
        return [0] * len(rows)
    pad = getattr(generator.tokenizer, "pad_token_id", None)
    return [next((i for i, token in enumerate(ids) if token != pad), 0) for ids in rows]


PATCH = Patch(
    id="mlx_vlm.batch_padding",
    targets=(_INSERT, _PROCESS, *_GENERATE),
    apply=apply,
    probe=probe,
)
