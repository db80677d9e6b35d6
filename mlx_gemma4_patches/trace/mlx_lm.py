"""How mlx-lm reads the prompts of ``cases``, by the functions that its users call."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import mlx.core as mx

from ..gemma4 import tiny
from ..gemma4.embedded import embed
from ..gemma4.placeholders import Placeholders
from ..patch import NotApplicable
from .cases import CHUNK, DRAFTS, FOLDER, IMAGE, LENGTH, QUESTION, Case
from .taps import Recorder, Seen, tap, tap_assistant


def model(case: Case) -> Any:
    from ..hosts.mlx_lm.tiny import text_model

    return text_model("dense" if case.shape == "12b" else case.shape)


def read(made: Any, case: Case, ids: list[int]) -> Recorder | _Drafts:
    """Have ``made``, a ``model``, read ``ids``.

    Raises:
        NotApplicable: without patches mlx-lm sees no images and takes no assistants; the towers
            are mlx-vlm's.
    """
    host = importlib.import_module("mlx_lm.generate")  # also the name of a function there
    if case.way == "batched":
        return _batched(host, made, ids)
    if case.way == "image":
        return _pictured(host, made, case, ids)
    if case.way == "drafts":
        return _drafted(host, made, case, ids)
    how: dict[str, Any] = {"prefill_step_size": CHUNK} if case.way == "chunked" else {}
    if case.way == "cached":
        from mlx_lm.models.cache import make_prompt_cache

        how["prompt_cache"] = make_prompt_cache(made)
        known, ids = ids[: LENGTH - QUESTION], ids[LENGTH - QUESTION :]
        list(host.generate_step(mx.array(known), made, max_tokens=0, **how))
    recorder = tap(made)
    list(host.generate_step(mx.array(ids), made, max_tokens=0, **how))
    return recorder


def _batched(host: Any, made: Any, ids: list[int]) -> Recorder:
    """Between a short prompt and one of medium length."""
    recorder = tap(made)
    prompts = [tiny.prompt(5, seed=1), ids, tiny.prompt(20, seed=2)]
    sizes = {"prefill_batch_size": len(prompts), "completion_batch_size": len(prompts)}
    batch = host.BatchGenerator(made, max_tokens=1, **sizes)
    batch.insert(prompts)
    left = len(prompts)
    while left:
        said = batch.next()
        left -= len(said[-1] if isinstance(said, tuple) else said)
    return recorder


def _pictured(host: Any, made: Any, case: Case, ids: list[int]) -> Recorder:
    if not hasattr(made, "embed_inputs"):
        raise NotApplicable("mlx-lm sees no images")
    table = made.language_model.model.embed_tokens
    prompt, config = mx.array(ids), tiny.config("dense" if case.shape == "12b" else case.shape)
    image = config["image_token_id"]
    rows = _soft_tokens(case, image, ids.count(image), table(prompt).dtype)
    is_whole = config["text_config"]["use_bidirectional_attention"] == "vision"
    embedded = embed(prompt, table, {image: [rows]}, is_whole, Placeholders(image))
    recorder = tap(made)
    recorder.add_media("image features", rows)
    list(host.generate_step(prompt, made, max_tokens=0, input_embeddings=embedded))
    return recorder


def _soft_tokens(case: Case, image: int, count: int, dtype: mx.Dtype) -> mx.array:
    """(soft tokens, hidden), by mlx-vlm's towers; the 12B has no vision weights here."""
    if case.shape == "12b":
        return mx.load(str(FOLDER / "12b.safetensors"))["image/features"].astype(dtype)
    if find_spec("mlx_vlm") is None:
        raise NotApplicable("mlx-vlm, which has the towers, is not installed")
    from ..hosts.mlx_vlm import tiny as tiny_vlm

    towers = tiny_vlm.model(case.shape)
    towers.set_dtype(dtype)
    pixels, here = mx.array(tiny.image(*IMAGE))[None], mx.full((1, count), image)
    return towers.get_input_embeddings(input_ids=here, pixel_values=pixels).inputs_embeds[0]


class _Drafts:
    """What was recorded of the drafts, which are the end of the ids."""

    def __init__(self, recorder: Recorder):
        self._recorder = recorder

    def seen(self, ids: list[int]) -> Seen:
        return self._recorder.seen(ids[-DRAFTS:])


def _drafted(host: Any, made: Any, case: Case, ids: list[int]) -> _Drafts:
    from ..hosts.mlx_lm.tiny import assistant

    try:
        draft = assistant(case.shape)
    except ValueError:
        raise NotApplicable("mlx-lm takes no assistants") from None
    draft.set_dtype(made.language_model.model.norm.weight.dtype)
    recorder = tap_assistant(draft)
    known, how = mx.array(ids[:-DRAFTS]), {"num_draft_tokens": DRAFTS, "max_tokens": DRAFTS + 1}
    next(host.speculative_generate_step(known, made, draft, **how))  # of the first block
    recorder.stop()
    return _Drafts(recorder)
