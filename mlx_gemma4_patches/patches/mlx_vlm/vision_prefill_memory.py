"""A prompt with images needs gigabytes for logits that nobody reads.

What the user sees: an allocation of many gigabytes, or the end of the process, at the first image
of a long conversation: 262144 logits for each token of the prompt, 1 GB for 2000 tokens in bfloat16
and again for the soft cap.

Why: prompts with images are prefilled in one piece, and all logits are computed to choose one
token by. Since 0.6.10 ``generate_step`` asks for the last position alone, since 0.7.1 batches and
with them the server do.

The fix: prompts with images ask for it, as later releases do (``logits_to_keep``), and the text
model hands over only as many positions. Who calls the model without asking gets all, as before. It
can be deleted when no supported release is older than 0.7.1.
"""

from __future__ import annotations

import importlib
from contextvars import ContextVar

import mlx.core as mx

from ...gemma4 import tiny as gemma4_tiny
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_LANGUAGE = "mlx_vlm.models.gemma4.language"
_MODEL = f"{_LANGUAGE}:LanguageModel"
_TEXT_MODEL = f"{_LANGUAGE}:Gemma4TextModel.__call__"
_AR, _GENERATE = "mlx_vlm.generate.ar", "mlx_vlm.generate"  # since 0.6.0, before
_STEP = "generate_step"
_BATCH = "PromptProcessingBatch.generate"
_OLD_BATCH = "BatchGenerator._step"  # up to 0.4.4

_keep: ContextVar[int | None] = ContextVar("positions to keep", default=None)


def probe() -> Finding:
    generate = importlib.import_module(_GENERATE)  # also the name of a function in it
    model = tiny.model("dense")
    ids = mx.array([[*gemma4_tiny.prompt(4), *[model.config.image_token_id] * 4]])
    table = model.language_model.model.embed_tokens
    original, counts = table.as_linear, []
    table.as_linear = lambda hidden: counts.append(hidden.shape[1]) or original(hidden)

    how = {"max_tokens": 1, "temperature": 0.0, "prefill_step_size": None}
    next(generate.generate_step(ids, model, None, None, **how))
    alone = counts[0]
    counts.clear()
    embeddings = model.get_input_embeddings(ids).inputs_embeds
    cache = model.language_model.make_cache()
    if hasattr(generate, "PromptProcessingBatch"):
        batch = generate.PromptProcessingBatch(
            model.language_model, [0], ids.tolist(), [1], embeddings, {}, prefill_step_size=None
        )
        batch.generate(lambda logits: mx.argmax(logits, axis=-1), lambda token: False)
    else:
        batch = object.__new__(generate.BatchGenerator)
        batch.model, batch.sampler = model.language_model, lambda logits: logits
        batch._step(ids, cache, inputs_embeds=embeddings)
    together = counts[0]
    measured = f"logits are computed at {alone} of 8 positions alone, at {together} in a batch"
    return Finding(alone > 1 or together > 1, measured)


def apply(surgery: Surgery) -> None:
    placeholders.learn_with_each_prompt(surgery)
    module = _AR
    try:
        importlib.import_module(_AR)
    except ImportError:
        module = _GENERATE
    if not hasattr(surgery.resolve(_MODEL), "supports_logits_to_keep"):  # up to 0.6.9
        surgery.wrap(f"{_MODEL}.__call__", _language_model)
        surgery.wrap(_TEXT_MODEL, _text_model)
        surgery.wrap(f"{module}:{_STEP}", _generate_step)
    if hasattr(importlib.import_module(module), "PromptProcessingBatch"):
        surgery.wrap(f"{module}:{_BATCH}", _batch)
    else:
        surgery.wrap(f"{module}:{_OLD_BATCH}", _old_batch)


def _language_model(original):
    def __call__(self, *args, logits_to_keep=None, **kwargs):
        before = _keep.set(logits_to_keep)
        try:
            return original(self, *args, **kwargs)
        finally:
            _keep.reset(before)

    return __call__


def _text_model(original):
    def __call__(self, *args, **kwargs):
        made, keep = original(self, *args, **kwargs), _keep.get()
        return made[:, -keep:] if keep else made

    return __call__


def _generate_step(original):
    def generate_step(input_ids, model, *args, **kwargs):
        if _has_images(model, input_ids):
            kwargs.setdefault("logits_to_keep", 1)
        return original(input_ids, model, *args, **kwargs)

    return generate_step


def _batch(original):
    def generate(self, *args, **kwargs):
        if _has_images(self.model, self._input_ids):
            longest = max(self._right_pad_per_row or [0])  # each row's last is that far back
            self._prompt_kwargs.setdefault("logits_to_keep", 1 + longest)
        return original(self, *args, **kwargs)

    return generate


def _old_batch(original):
    def _step(self, input_tokens, *args, **kwargs):
        if input_tokens.shape[1] > 1 and _has_images(self.model, input_tokens):
            kwargs.setdefault("logits_to_keep", 1)
        return original(self, input_tokens, *args, **kwargs)

    return _step


def _has_images(model, ids):
    text_model = placeholders.text_model_of(model)
    return text_model is not None and placeholders.has_images(text_model, ids)


PATCH = Patch(
    id="mlx_vlm.vision_prefill_memory",
    targets=(
        f"{placeholders.EMBED}()",
        f"{_MODEL}.__call__()",
        f"{_AR}:{_STEP}(input_ids, model, *, logits_to_keep)",
        f"{_AR}:{_BATCH}",
        f"{_GENERATE}:{_STEP}(input_ids, model, *, logits_to_keep)",
        f"{_GENERATE}:{_BATCH}",
        f"{_GENERATE}:{_OLD_BATCH}",
    ),
    apply=apply,
    probe=probe,
)
