"""How mlx-vlm reads the prompts of ``cases``, by the functions that its users call."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import mlx.core as mx

from ..gemma4 import tiny
from ..hosts.mlx_vlm import tiny as tiny_vlm
from ..patch import NotApplicable
from .cases import CHUNK, FOLDER, IMAGE, PROMPT, SAID, Case, frames
from .taps import Recorder, tap


def model(case: Case) -> Any:
    """
    Raises:
        NotApplicable: the release has no such model.
    """
    if case.shape == "12b":
        try:
            return tiny_vlm.unified_model()
        except ImportError:
            raise NotApplicable("this release has no 12B") from None
    return tiny_vlm.hearing_model() if case.way == "sound" else tiny_vlm.model(case.shape)


def read(made: Any, case: Case, ids: list[int]) -> Recorder:
    """Have ``made``, a ``model``, read ``ids``.

    Raises:
        NotApplicable: the release has no such way.
    """
    host = importlib.import_module("mlx_vlm.generate")  # also the name of a function there
    if case.way == "batched":
        return _batched(host, made, ids)
    if case.way == "cached":
        return _cached(host, made, ids)
    how: dict[str, Any] = {"prefill_step_size": CHUNK} if case.way == "chunked" else {}
    pixels = None
    if case.way == "image":
        pixels = mx.array(tiny.image(*IMAGE))[None]
        how |= _which_are_soft_tokens(made, ids)
        if case.shape == "12b":
            _stand_aside(made, ids)
    if case.way == "sound":
        mel = mx.array(frames())
        how |= {"input_features": mel, "input_features_mask": mx.ones(mel.shape[:2], mx.bool_)}
    recorder = tap(made)
    row, sampler = mx.array([ids]), _stopping(recorder)
    next(host.generate_step(row, made, pixels, None, max_tokens=1, sampler=sampler, **how))
    return recorder


def _which_are_soft_tokens(made: Any, ids: list[int]) -> dict[str, mx.array]:
    """What the processors of 0.6.1 and later say beside the ids."""
    text = type(made.language_model.model)
    name = "mm_token_type_ids"
    if name not in inspect.signature(text.__call__).parameters:
        return {}
    return {name: (mx.array([ids]) == made.config.image_token_id).astype(mx.int32)}


def _stand_aside(made: Any, ids: list[int]) -> None:
    """Give the text model of a 12B, which has no vision weights here, the stored soft tokens."""
    from mlx_vlm.models.base import InputEmbeddingsFeatures

    text, row = made.language_model.model, mx.array(ids)
    stored = mx.load(str(FOLDER / "12b.safetensors"))["image/features"]
    is_image = row == made.config.image_token_id
    at = mx.maximum(mx.cumsum(is_image.astype(mx.int32)) - 1, 0)
    words = text.embed_tokens(row) * text.embed_scale
    embedded = mx.where(is_image[:, None], stored[at].astype(words.dtype), words)[None]
    made.get_input_embeddings = lambda *_, **__: InputEmbeddingsFeatures(inputs_embeds=embedded)


def _cached(host: Any, made: Any, ids: list[int]) -> Recorder:
    """As the second turn of a chat."""
    if not hasattr(host, "PromptCacheState"):
        raise NotApplicable("this release keeps no prompt caches")
    state = host.PromptCacheState()

    def turn(known: list[int], tokens: int, **how: Any) -> None:
        how |= {"prompt_cache_state": state, "temperature": 0.0, "max_tokens": tokens}
        row = mx.array([known])
        list(host.stream_generate(made, tiny_vlm.processor(), "", input_ids=row, **how))

    turn(ids[:PROMPT], SAID)
    recorder = tap(made)
    turn(ids, 1, sampler=_stopping(recorder))
    return recorder


def _batched(host: Any, made: Any, ids: list[int]) -> Recorder:
    """Between a short prompt and one of medium length."""
    recorder = tap(made)
    rows = [tiny.prompt(5, seed=1), ids, tiny.prompt(20, seed=2)]
    prompts = [" ".join(map(str, row)) for row in rows]
    host.batch_generate(made, tiny_vlm.processor(), prompts=prompts, max_tokens=2, verbose=False)
    return recorder


def _stopping(recorder: Recorder) -> Any:
    """A greedy sampler, which is called as soon as the prompt was read."""

    def sampler(logprobs: mx.array) -> mx.array:
        recorder.stop()
        return mx.argmax(logprobs, axis=-1)

    return sampler
