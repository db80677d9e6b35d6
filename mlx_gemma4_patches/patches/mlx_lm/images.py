"""Gemma 4 sees no pictures through mlx-lm, which has its text model alone.

What the user sees: ``mlx_lm.generate --image`` ends in "does not take images", and the server
answers to a part of a message that is an image with "Only 'text' content type is supported".

Why: the text model scales every row it is given, looks media up among the words, and shows no image
as a whole; prefill is cut anywhere.

What is added: ``Model.embed_inputs``, which mlx-lm's own image path asks for since 0.32.1, and a
text model that takes what it returns: soft tokens as mlx-vlm makes them (``hosts.mlx_lm.media``),
with padding for the per-layer lookup and the masks of ``gemma4.vision_mask``, in steps that split
no image. Text and anybody's embeddings go through untouched. ``image_towers`` and ``image_parts``
are its way in. It can be deleted when mlx-lm has images for Gemma 4.

Upstream: not asked for yet; mlx-engine drives mlx-lm with mlx-vlm's rows in its own way.
"""

from __future__ import annotations

import inspect
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny, vision_mask
from ...gemma4.embedded import Embedded, embed
from ...gemma4.placeholders import Placeholders
from ...hosts.mlx_lm import media
from ...hosts.mlx_lm.chat import require_gemma4
from ...hosts.mlx_lm.prefill import Reader, prefill
from ...hosts.mlx_lm.prefixes import seeing
from ...hosts.mlx_lm.speculation import View
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, Patch
from ...surgery import Surgery

_TEXT_MODEL = "mlx_lm.models.gemma4_text:Gemma4TextModel.__call__"
_MODEL = "mlx_lm.models.gemma4:Model"
_STEP = "mlx_lm.generate:generate_step"
_STREAM = "mlx_lm.generate:stream_generate"


def probe() -> Finding:
    require_gemma4()
    model = text_model("dense")
    image = tiny.config("dense")["image_token_id"]
    ids = mx.array([*tiny.prompt(3), *[image] * 4, *tiny.prompt(2)])
    rows = mx.array(tiny.tensor("soft tokens", (4, model.args.text_config["hidden_size"])))
    table = model.language_model.model.embed_tokens
    embedded = embed(ids, table, {image: [rows]}, True, Placeholders(image))
    try:
        logits, other = (model(ids[None], input_embeddings=made[None]) for made in _two(embedded))
    except Exception as error:
        return Finding(True, f"soft tokens in a prompt: {type(error).__name__}")
    seen = mx.abs(logits - other)[0].max(axis=-1) > 1e-6
    first = int(mx.argmax(seen).item())
    return Finding(first != 3, f"the last soft token of an image at 3 to 6 is seen from {first} on")


def _two(embedded: Embedded) -> tuple[Embedded, Embedded]:
    """The same twice, but for the last soft token."""
    last = mx.arange(len(embedded))[:, None] == 6
    rows = mx.where(last, mx.roll(embedded.rows, 1, axis=-1), embedded.rows)
    return embedded, Embedded(embedded.ids, rows, embedded.media, embedded.whole)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TEXT_MODEL, _text_model)
    surgery.add(f"{_MODEL}.embed_inputs", embed_inputs)
    surgery.wrap(_STEP, _step)
    surgery.wrap(_STREAM, _stream)


# The model


def _text_model(original):
    def __call__(self, inputs=None, cache=None, input_embeddings=None, *args, **kwargs):
        if not isinstance(input_embeddings, Embedded):
            return original(self, inputs, cache, input_embeddings, *args, **kwargs)
        given = input_embeddings
        seeing_media = View(
            self,
            embed_scale=given.scale(self.embed_scale),
            _get_per_layer_inputs=lambda ids, rows: self._get_per_layer_inputs(given.ids, rows),
            _make_masks=lambda h, caches: _masks(self, given, h, caches),
        )
        return original(seeing_media, given.ids, cache, given.rows, *args, **kwargs)

    return __call__


def _masks(text_model: Any, given: Embedded, h: mx.array, caches: list[Any]) -> list[Any]:
    masks = text_model._make_masks(h, caches)
    if not given.whole.any().item():
        return masks
    from mlx_lm.models.base import create_attention_mask

    types = [layer.layer_type for layer in text_model.layers]
    first = caches[types.index("sliding_attention")]
    window = text_model.window_size
    causal = create_attention_mask(h, first, window_size=window, return_array=True)
    ours = vision_mask.sliding_mask(causal, given.whole)
    return [
        ours if kind == "sliding_attention" else mask
        for kind, mask in zip(types, masks, strict=True)
    ]


def embed_inputs(self, inputs: mx.array, *, pixel_values: list[dict] | None = None) -> Any:
    """Embeddings of a prompt, int (L,), with its pictures, as the host's own image path asks.

    Raises ``media.MediaError``: the model takes no pictures, or the prompt has not as many.
    """
    if not pixel_values:
        return self.language_model.model.embed_tokens(inputs)
    return media.Towers.of(self).with_pictures(self, inputs, pixel_values)


# The prefill


def _step(original):
    signature = inspect.signature(original)

    def generate_step(*args, **kwargs):
        if not isinstance(kwargs.get("input_embeddings"), Embedded):
            return original(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        return _behind_media(original, given.arguments)

    return generate_step


def _behind_media(original, given: dict[str, Any]):
    from mlx_lm.models.cache import make_prompt_cache

    ids, model = mx.array(given["prompt"]), given["model"]
    if given["prompt_cache"] is None:
        given["prompt_cache"] = make_prompt_cache(model, max_kv_size=given["max_kv_size"])
    said = given["prompt_progress_callback"] or (lambda done, total: None)
    total = len(ids)
    said(0, total)
    embedded = given["input_embeddings"]
    stops = embedded.stops(given["prefill_step_size"])
    reader = Reader(model, slice(None), embedded)
    prefill([reader], ids, given["prompt_cache"], stops, given, said)
    given |= {
        "prompt": ids[-1:],
        "input_embeddings": None,
        "logits_processors": seeing(given["logits_processors"], ids[:-1].tolist()),
        "prompt_progress_callback": lambda done, _: said(total - 1 + done, total) if done else None,
    }
    yield from original(**given)


def _stream(original):
    """With a draft model the host takes no embeddings: both models read the prompt before."""
    signature = inspect.signature(original)
    steps = inspect.signature(inspect.getmodule(original).generate_step).parameters
    defaults = {name: of.default for name, of in steps.items() if of.default is not of.empty}

    def stream_generate(*args, **kwargs):
        if not isinstance(kwargs.get("input_embeddings"), Embedded):
            return original(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        given.update(given.pop("kwargs"))
        if given.get("draft_model") is None:
            return original(*args, **kwargs)
        return _drafted(original, given, {**defaults, **given})

    return stream_generate


def _drafted(original, given: dict[str, Any], how: dict[str, Any]):
    from mlx_lm.models.cache import make_prompt_cache

    ids, model, draft = mx.array(given["prompt"]), given["model"], given["draft_model"]
    own, embedded = make_prompt_cache(model), given.pop("input_embeddings")
    caches = how["prompt_cache"]
    if caches is None:
        caches = own + make_prompt_cache(draft)
    readers = (Reader(model, slice(len(own)), embedded), Reader(draft, slice(len(own), None)))
    said = how["prompt_progress_callback"] or (lambda done, total: None)
    prefill(readers, ids, caches, embedded.stops(how["prefill_step_size"]), how, said)
    processors = seeing(how["logits_processors"], ids[:-1].tolist())
    more = {"prompt": ids[-1:], "prompt_cache": caches, "logits_processors": processors}
    yield from original(**{**given, **more})


PATCH = Patch(
    id="mlx_lm.images",
    targets=(
        _TEXT_MODEL,
        f"{_MODEL}.__call__(self, inputs, cache, input_embeddings)",
        f"{_STEP}(prompt, model, *, input_embeddings, prompt_cache, prefill_step_size)",
        f"{_STREAM}(model, tokenizer, prompt, *, draft_model)",
    ),
    apply=apply,
    probe=probe,
)
