"""Gemma 4 E2B and E4B answer nonsense once a conversation reuses its cache.

What the user sees: the first answer is right, the second, with ``prompt_cache_state``, the prefix
cache of ``stream_generate`` or a ``prompt_cache`` of the caller's, is wrong: since 0.7.0 always, up
to 0.6.17 if what is new is longer than ``prefill_step_size``. 0.4.3 cannot prefill these models in
parts at all, for more reasons than this one.

Why: per-layer inputs are made for the new part of the prompt and handed over whole with each part
of the prefill. The text model cuts from them at the offset of the cache, as if they began where the
conversation does.

The fix: where they are longer than the part, they are looked up again by the part's own ids, media
ids as padding. It can be deleted when they are cut where they are made.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny as gemma4_tiny
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TEXT_MODEL = "mlx_vlm.models.gemma4.language:Gemma4TextModel.__call__"


def probe() -> Finding:
    model = tiny.model("e2b")
    if len(model.language_model.make_cache()) == len(model.language_model.layers):
        raise NotApplicable("this mlx-vlm cannot prefill E2B and E4B in parts")
    ids = mx.array([gemma4_tiny.prompt(8)])
    made = model.get_input_embeddings(ids[:, 4:])

    def logits(per_layer_inputs: mx.array) -> mx.array:
        cache = model.language_model.make_cache()
        model.language_model(ids[:, :4], cache=cache)
        part = {"inputs_embeds": made.inputs_embeds[:, :2], "per_layer_inputs": per_layer_inputs}
        return model.language_model(ids[:, 4:6], cache=cache, **part).logits

    whole = logits(made.per_layer_inputs)
    error = mx.abs(whole - logits(made.per_layer_inputs[:, :2])).max().item()
    measured = f"tokens that follow a cached prefix: logits off by {error:.1e}"
    return Finding(error > 1e-2, measured)


def apply(surgery: Surgery) -> None:
    placeholders.learn_with_each_prompt(surgery)
    surgery.wrap(_TEXT_MODEL, _text_model)


def _text_model(original):
    def __call__(
        self,
        inputs=None,
        inputs_embeds=None,
        mask=None,
        cache=None,
        per_layer_inputs=None,
        *args,
        **kwargs,
    ):
        if (
            per_layer_inputs is not None
            and inputs is not None
            and inputs_embeds is not None
            and inputs.shape == inputs_embeds.shape[:2] != per_layer_inputs.shape[:2]
        ):
            ids = placeholders.of(self).without(inputs)
            per_layer_inputs = self.get_per_layer_inputs(ids)
        return original(self, inputs, inputs_embeds, mask, cache, per_layer_inputs, *args, **kwargs)

    return __call__


PATCH = Patch(
    id="mlx_vlm.per_layer_slice",
    targets=(
        f"{_TEXT_MODEL}(self, inputs, inputs_embeds, mask, cache, per_layer_inputs)",
        f"{placeholders.EMBED}()",
    ),
    apply=apply,
    probe=probe,
)
