"""Without continuous batching a conversation with a picture is processed again in every turn.

What the user sees: every turn of ``vllm-mlx serve``, with ``--mllm`` or a checkpoint that can see,
takes as long as the whole conversation, once there is a picture or a sound in it.
(``prefix_reuse_routed`` is for the others.)

Why: the simple engine makes new caches for every request that it reads with mlx-vlm's model.

What is added: the places where Gemma 4's prompts part (``gemma4.prefix_cuts``) and the ends of
answers are kept (``gemma4.prefix_store``) and a request goes on from the longest that its prompt
begins with, pictures and sounds by their content (``gemma4.media_ids``), videos not. It takes no
more memory than ``MLX_GEMMA4_PATCHES_PREFIX_BYTES``, by default a tenth of the device's, 8 GB at
most. It can be deleted when the simple engine keeps what it has processed.

Upstream: none known.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import mlx.core as mx

from ...gemma4 import prefix_limit, tiny
from ...gemma4.media_ids import NAMES, Seen
from ...gemma4.placeholders import Placeholders
from ...gemma4.prefix_store import PrefixStore
from ...hosts.mlx_vlm.tiny import model
from ...hosts.vllm_mlx import text_steps
from ...hosts.vllm_mlx.models import is_gemma4
from ...hosts.vllm_mlx.prefixes import reads, watch
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_LOAD = "vllm_mlx.models.mllm:MLXMultimodalLM.load"
_STEP = "mlx_vlm.generate:generate_step"  # called with models that keep, else as it is
_PREFIXES = "_gemma4_prefixes"


def probe() -> Finding:
    from vllm_mlx.models.mllm import MLXMultimodalLM

    engine = MLXMultimodalLM("a path")
    engine.model, engine._loaded = model("dense"), True
    engine.load()
    text = engine.model.language_model
    text.model = counting = _Counting(text.model)
    step = importlib.import_module("mlx_vlm.generate").generate_step
    prompt = mx.array([tiny.prompt(30)])
    for _ in range(2):
        counting.tokens = 0
        said = step(prompt, engine.model, None, None, prompt_cache=text.make_cache(), max_tokens=1)
        try:
            next(said)
        except TypeError as error:  # the host has put another release's attention into the model
            raise NotApplicable(f"beside this mlx-vlm no prompt is read: {error}") from None
        again = counting.tokens
    return Finding(again > 2, f"of 30 tokens that come again {again} are processed")


class _Counting:
    """A part of a model that counts the tokens it is given."""

    def __init__(self, part: Any):
        self._part = part
        self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __call__(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = inputs if inputs is not None else kwargs["inputs_embeds"]
        self.tokens += given.shape[1]
        return self._part(inputs, *args, **kwargs)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD, _opening)
    surgery.wrap(_STEP, _going_on)
    watch(surgery)


def _opening(original):
    def load(self):
        made = original(self)
        if is_gemma4(self.model) and prefix_limit.limit() != 0:
            vars(self.model).setdefault(_PREFIXES, PrefixStore())
        return made

    return load


def _store_of(made: Any) -> PrefixStore | None:
    return getattr(made, "__dict__", {}).get(_PREFIXES)


def _going_on(original):
    signature = inspect.signature(original)

    def generate_step(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        store = _store_of(call.arguments["model"])
        if store is None or not _is_new(call):
            return original(*args, **kwargs)
        try:
            seen = _seen(call)
        except ValueError:
            return original(*args, **kwargs)
        return _gone_on(original, call, store, seen)

    return generate_step


def _is_new(call: inspect.BoundArguments) -> bool:
    """Whether a call reads one prompt of token ids, with caches that are new."""
    given = {**call.arguments, **call.arguments.get("kwargs", {})}
    caches = given.get("prompt_cache")
    return (
        bool(caches)
        and given["input_ids"].shape[0] == 1
        and all(getattr(cache, "keys", 0) is None for cache in caches)
        and all(given.get(name) is None for name in ("inputs_embeds", "draft_model"))
    )


def _seen(call: inspect.BoundArguments) -> Seen:
    given = call.arguments
    inputs = {**given.get("kwargs", {}), "pixel_values": given.get("pixel_values")}
    placeholders = Placeholders.of(getattr(given["model"], "config", None))
    return Seen(given["input_ids"][0].tolist(), inputs, placeholders)


def _gone_on(original, call: inspect.BoundArguments, store: PrefixStore, seen: Seen):
    given, caches = call.arguments, call.arguments["prompt_cache"]
    prompt = given["input_ids"][0].tolist()
    length, found = text_steps.find(store, seen.ids, caches)
    if found is not None:
        caches[:] = found
        _cut(given, length, len(prompt))
        _cut(given.get("kwargs", {}), length, len(prompt))
        left = seen.behind(length)
        given["pixel_values"] = left.pop("pixel_values", None)
        given["kwargs"] = {**given.get("kwargs", {}), **left}
    ids = list(seen.ids)

    def keep(_: list[int], caches: list[Any], lengths: list[int]) -> None:
        text_steps.keep(store, ids, caches, lengths)

    reads(prompt, length, keep)
    try:
        for token, logprobs in original(*call.args, **call.kwargs):
            ids.append(int(token))
            yield token, logprobs
    finally:
        keep(ids, caches, [min(len(ids), caches[0].offset)])


def _cut(given: dict[str, Any], start: int, length: int) -> None:
    """Leave out the first tokens of everything that has a value for each of ``length``."""
    for name, value in given.items():
        if name in NAMES:
            continue
        if isinstance(value, mx.array) and value.ndim > 1 and value.shape[1] == length:
            given[name] = value[:, start:]


PATCH = Patch(id="vllm_mlx.prefix_reuse_unbatched", targets=(_LOAD,), apply=apply, probe=probe)
