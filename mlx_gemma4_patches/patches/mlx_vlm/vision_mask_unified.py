"""Gemma 4 12B attends to images as to text where its model is called as a whole.

What the user sees: with vllm-mlx, and in training, what ``mlx_vlm.vision_mask`` is about.

Why: ``Model.__call__`` of ``gemma4_unified`` hands neither ids nor token types on to the text
model; since 0.6.5 that of the other Gemma 4 does.

The fix: the ids of the pass are there for the mask. It can be deleted with ``mlx_vlm.vision_mask``.
"""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx

from ...gemma4 import vision_mask
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.models.gemma4_unified.gemma4_unified:Model.__call__"


def probe() -> Finding:
    try:
        model = tiny.unified_model()
    except ImportError:
        raise NotApplicable("this mlx-vlm has no Gemma 4 12B") from None
    embed = model.get_input_embeddings

    def logits(ids: mx.array, embeddings: mx.array) -> mx.array:
        made = SimpleNamespace(inputs_embeds=embeddings, per_layer_inputs=None)
        model.get_input_embeddings = lambda **_: made
        try:
            return model(ids).logits
        finally:
            model.get_input_embeddings = embed

    return vision_mask.probe(tiny.layer_sees(model, logits))


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, placeholders.with_ids_at_hand)


PATCH = Patch(
    id="mlx_vlm.vision_mask_unified",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
