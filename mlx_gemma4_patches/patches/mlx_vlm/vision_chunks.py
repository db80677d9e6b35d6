"""Long prompts of Gemma 4 26B, 31B and 12B are cut in the middle of an image.

What the user sees: an image of a prompt longer than ``prefill_step_size`` (2048) is misread, now
and then: two parts of it do not see each other.

Why: prefill in parts cuts wherever the step ends, but these models look at an image as a whole (see
``gemma4.vision_mask``). Since 0.6.2 a prompt with images is prefilled in one piece, unless it has
audio too or comes without ``mm_token_type_ids``; before, always in parts.

The fix: in one piece, as mlx-vlm does since 0.6.2, whenever the prompt's ids say image. It can be
deleted when mlx-vlm cuts between images.
"""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny as gemma4_tiny
from ...gemma4 import vision_mask
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_POLICIES = (
    "mlx_vlm.generate.common:_chunked_prefill_enabled",  # since 0.6.9
    "mlx_vlm.generate.ar:_chunked_prefill_enabled",  # since 0.6.2
)
_BATCHES = (
    "mlx_vlm.generate.ar:PromptProcessingBatch.__init__",
    "mlx_vlm.generate:PromptProcessingBatch.__init__",  # 0.5.0
)
_OLD_BATCH = "mlx_vlm.generate:BatchGenerator._process_prompts"  # up to 0.4.4


def probe() -> Finding:
    generate = importlib.import_module("mlx_vlm.generate")  # also the name of a function in it
    model = tiny.model("dense")
    config = model.config
    ids = mx.array([[*gemma4_tiny.prompt(4), *[config.image_token_id] * 9, config.audio_token_id]])
    cache = model.language_model.make_cache()
    parts = []

    class Watched(type(cache[0])):
        def update_and_fetch(self, keys, values):
            parts.append(keys.shape[2])
            return super().update_and_fetch(keys, values)

    cache[0] = Watched(cache[0].max_size)
    types = mx.array([[0] * 4 + [1] * 9 + [3]])
    how = {"max_tokens": 1, "temperature": 0.0, "prompt_cache": cache, "prefill_step_size": 8}
    next(generate.generate_step(ids, model, None, None, mm_token_type_ids=types, **how))
    measured = f"of a prompt of 14 tokens with an image at 4 to 12, prefill begins with {parts[0]}"
    return Finding(parts[0] == 8, measured)


def apply(surgery: Surgery) -> None:
    if _wrap_first(surgery, _POLICIES, _chunked_prefill_enabled):
        placeholders.learn_with_each_prompt(surgery)
        return
    surgery.wrap(placeholders.EMBED, _get_input_embeddings)
    if not _wrap_first(surgery, _BATCHES, _prompt_batch):
        surgery.wrap(_OLD_BATCH, _process_prompts)


def _wrap_first(surgery: Surgery, targets: tuple[str, ...], make: Any) -> bool:
    for target in targets:
        try:
            surgery.wrap(target, make)
        except (ImportError, AttributeError):  # another release's
            continue
        return True
    return False


def _is_one_piece(model: Any, ids: Any) -> bool:
    """Whether ``model``, a Gemma 4 or its language model, must have ``ids`` (B, L) in one piece."""
    text_model = placeholders.text_model_of(model)
    return (
        text_model is not None
        and vision_mask.applies(text_model.config)
        and ids is not None
        and placeholders.has_images(text_model, ids)
    )


def _chunked_prefill_enabled(original):
    def enabled(model, *args, input_ids=None, **kwargs):
        if _is_one_piece(model, input_ids):
            return False
        return original(model, *args, input_ids=input_ids, **kwargs)

    return enabled


def _get_input_embeddings(original):
    def get_input_embeddings(self, input_ids=None, *args, **kwargs):
        self.no_chunked_prefill = _is_one_piece(self, input_ids)  # generate_step asks next
        return original(self, input_ids, *args, **kwargs)

    return get_input_embeddings


def _prompt_batch(original):
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if _is_one_piece(self.model, self._input_ids):
            self.prefill_step_size = None

    return __init__


def _process_prompts(original):
    def process_prompts(self, prompts, **kwargs):
        step = self.prefill_step_size
        if any(_is_one_piece(self.model, mx.array([ids])) for _, ids, *_ in prompts):
            self.prefill_step_size = None
        try:
            return original(self, prompts, **kwargs)
        finally:
            self.prefill_step_size = step

    return process_prompts


PATCH = Patch(
    id="mlx_vlm.vision_chunks",
    targets=(*_POLICIES, *_BATCHES, _OLD_BATCH, f"{placeholders.EMBED}(self, input_ids)"),
    apply=apply,
    probe=probe,
)
