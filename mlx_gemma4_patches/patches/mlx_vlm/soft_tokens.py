"""mlx-vlm 0.4.3 cannot make out images and sounds.

What the user sees: answers that have nothing to do with the picture.

Why: soft tokens are projected and then normed, not normed and then projected; and the text model
multiplies all embeddings by the square root of the hidden size, though this is for text alone.

The fix: the norm comes first, text is multiplied where it is embedded, and the text model takes
embeddings as they are, all as in later releases. It can be deleted when 0.4.3 is no longer
supported.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny as gemma4_tiny
from ...gemma4.placeholders import Placeholders, among
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_EMBEDDER = "mlx_vlm.models.gemma4.gemma4:MultimodalEmbedder.__call__"
_TEXT_MODEL = "mlx_vlm.models.gemma4.language:Gemma4TextModel.__call__"


def probe() -> Finding:
    model = tiny.model("dense")
    soft = model.embed_vision(mx.linspace(-1, 2, 128).reshape(1, 2, 64))
    lengths = mx.linalg.norm(soft, axis=-1)
    normed_last = mx.allclose(lengths[..., 0], lengths[..., 1], rtol=1e-4).item()

    image = model.config.image_token_id
    model.vision_tower, model.embed_vision = (lambda *_: soft), (lambda tokens: tokens)
    ids = mx.array([[*gemma4_tiny.prompt(2), image, image]])
    text_model = model.language_model.model
    text_model.layers = []
    entering = []
    text_model.norm = lambda hidden: entering.append(hidden) or hidden
    made = model.get_input_embeddings(ids, mx.zeros((1, 3, 48, 48)))
    model.language_model(ids, inputs_embeds=made.inputs_embeds)
    factor = (mx.linalg.norm(entering[0][0, 3]) / lengths[0, 1]).item()
    order = "after" if normed_last else "before"
    return Finding(
        normed_last or abs(factor - 1) > 1e-3,
        f"soft tokens are normed {order} the projection and scaled by {factor:.1f} on their way in",
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_EMBEDDER, _normed_first)
    surgery.wrap(placeholders.EMBED, _get_input_embeddings)
    surgery.wrap(_TEXT_MODEL, _text_model)


def _normed_first(original):
    def __call__(self, inputs_embeds):
        return self.embedding_projection(self.embedding_post_projection_norm(inputs_embeds))

    return __call__


def _get_input_embeddings(original):
    def get_input_embeddings(
        self, input_ids=None, pixel_values=None, audio_features=None, *args, **kwargs
    ):
        made = original(self, input_ids, pixel_values, audio_features, *args, **kwargs)
        known = Placeholders.of(self.config)
        replaced = []  # what keeps its placeholder is text
        if pixel_values is not None:
            replaced.append(known.image)
        if audio_features is not None or kwargs.get("input_features") is not None:
            replaced.append(known.audio)
        soft = among(input_ids, replaced)[..., None]
        scaled = made.inputs_embeds * self.language_model.model.embed_scale
        made.inputs_embeds = mx.where(soft, made.inputs_embeds, scaled)
        return made

    return get_input_embeddings


def _text_model(original):
    def __call__(self, inputs=None, inputs_embeds=None, *args, **kwargs):
        if inputs_embeds is None:
            return original(self, inputs, None, *args, **kwargs)
        scale, self.embed_scale = self.embed_scale, 1.0
        try:
            return original(self, inputs, inputs_embeds, *args, **kwargs)
        finally:
            self.embed_scale = scale

    return __call__


PATCH = Patch(
    id="mlx_vlm.soft_tokens",
    targets=(_EMBEDDER, placeholders.EMBED, _TEXT_MODEL),
    apply=apply,
    probe=probe,
)
