"""Gemma 4 26B, 31B and 12B attend to images wrongly.

What the user sees: wrong or vague answers about pictures; of the greedy tokens after an image,
hardly one is that of transformers.

Why: see ``gemma4.vision_mask``. Up to 0.6.0 images are attended to like text. Later releases let
the soft tokens of an image see each other in every layer and at any distance; and not at all where
``mm_token_type_ids`` do not come along, or are those of more than this part of the prompt.

The fix: the soft tokens are found by their ids, which come with every part of a prompt, and the
sliding-window layers get the right mask, built once in a forward pass. What has no image goes
through as it is. It can be deleted when mlx-vlm makes the masks of transformers 5.23.

Upstream: huggingface/transformers#46711, #46850.
"""

from __future__ import annotations

import importlib
from contextvars import ContextVar

import mlx.core as mx

from ...gemma4 import vision_mask
from ...gemma4.placeholders import among
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_LANGUAGE = "mlx_vlm.models.gemma4.language"
_TEXT_MODEL = f"{_LANGUAGE}:Gemma4TextModel"
_LAYER = f"{_LANGUAGE}:DecoderLayer.__call__"
_MODEL = "mlx_vlm.models.gemma4.gemma4:Model.__call__"
_STEPS = tuple(
    f"mlx_vlm.{module}:PromptProcessingBatch.prompt_step" for module in ("generate.ar", "generate")
)
_TYPES = ("mm_token_type_ids", "token_type_ids")
_NOTE = "_gemma4_is_text"  # on a batch of prompts

# of the forward pass under way
_mask: ContextVar[mx.array | None] = ContextVar("mask of sliding-window layers", default=None)
_is_text: ContextVar[bool] = ContextVar("part of prompts without images", default=False)


def probe() -> Finding:
    model = tiny.model("dense")

    def logits(ids: mx.array, embeddings: mx.array) -> mx.array:
        types = (ids == model.config.image_token_id).astype(mx.int32)
        return model.language_model(ids, inputs_embeds=embeddings, mm_token_type_ids=types).logits

    return vision_mask.probe(tiny.layer_sees(model, logits))


def apply(surgery: Surgery) -> None:
    placeholders.learn_with_each_prompt(surgery)
    surgery.wrap(_MODEL, placeholders.with_ids_at_hand)
    surgery.wrap(f"{_TEXT_MODEL}.__call__", _text_model)
    if hasattr(surgery.resolve(_TEXT_MODEL), "_make_masks"):
        surgery.wrap(f"{_TEXT_MODEL}._make_masks", _make_masks)
    else:  # up to 0.4.4
        surgery.wrap(_LAYER, _layer)
    if step := next((target for target in _STEPS if target in surgery.targets), None):
        surgery.wrap(step, _prompt_step)


def _prompt_step(original):
    def prompt_step(self):
        if _NOTE not in vars(self):  # once: to ask in each step waits for the step before
            text_model = placeholders.text_model_of(self.model)
            ids = getattr(self, "_input_ids", None)
            vars(self)[_NOTE] = (
                text_model is not None
                and ids is not None
                and vision_mask.applies(text_model.config)  # else nobody asks
                and not placeholders.has_images(text_model, ids)
            )
        before = _is_text.set(vars(self)[_NOTE])
        try:
            return original(self)
        finally:
            _is_text.reset(before)

    return prompt_step


def _text_model(original):
    def __call__(self, inputs=None, inputs_embeds=None, mask=None, cache=None, *args, **kwargs):
        if (
            inputs_embeds is not None  # no image comes without
            and inputs_embeds.shape[1] > 1
            and mask is None
            and not _is_text.get()
            and vision_mask.applies(self.config)
        ):
            kwargs, found = _take_images(self, inputs, inputs_embeds.shape[:2], kwargs)
            if found is not None:
                before = _mask.set(_sliding_mask(self, inputs_embeds, cache, found))
                try:
                    return original(self, inputs, inputs_embeds, mask, cache, *args, **kwargs)
                finally:
                    _mask.reset(before)
        return original(self, inputs, inputs_embeds, mask, cache, *args, **kwargs)

    return __call__


def _take_images(text_model, inputs, shape, kwargs):
    """``kwargs`` without what the host must not use, and where this pass has images, or None."""
    types = [kwargs[name] for name in _TYPES if kwargs.get(name) is not None]
    ids = placeholders.ids_of_pass.get() if inputs is None else inputs
    if ids is not None and ids.shape == shape:
        found = placeholders.of(text_model).seen(ids)
    else:
        found = next((_typed(values) for values in types if values.shape == shape), None)
    if found is not None and not found.any().item():
        found = None
    of_others = any(values.shape != shape and _typed(values).any().item() for values in types)
    if found is not None or of_others:
        kwargs = {name: value for name, value in kwargs.items() if name not in _TYPES}
    return kwargs, found


def _typed(types):
    return among(types, (1, 2))  # image, video


def _sliding_mask(text_model, embeddings, cache, found):
    types = [layer.layer_type for layer in text_model.layers]
    if "sliding_attention" not in types:
        return None
    first = None if cache is None else cache[types.index("sliding_attention")]
    make = importlib.import_module(_LANGUAGE).create_attention_mask
    causal = make(embeddings, first, window_size=text_model.window_size, return_array=True)
    return vision_mask.sliding_mask(causal, found)


def _make_masks(original):
    def _make_masks(self, *args, **kwargs):
        masks, ours = original(self, *args, **kwargs), _mask.get()
        if ours is None:
            return masks
        return [
            ours if layer.layer_type == "sliding_attention" else mask
            for layer, mask in zip(self.layers, masks, strict=True)
        ]

    return _make_masks


def _layer(original):
    def __call__(self, x, mask=None, *args, **kwargs):
        if self.layer_type == "sliding_attention" and (ours := _mask.get()) is not None:
            mask = ours
        return original(self, x, mask, *args, **kwargs)

    return __call__


PATCH = Patch(
    id="mlx_vlm.vision_mask",
    targets=(
        f"{_TEXT_MODEL}.__call__(self, inputs, inputs_embeds, mask, cache)",
        f"{_TEXT_MODEL}._make_masks",
        f"{_MODEL}(self, input_ids)",
        f"{placeholders.EMBED}()",
        *(f"{step}(self)" for step in _STEPS),
    ),
    apply=apply,
    probe=probe,
)
