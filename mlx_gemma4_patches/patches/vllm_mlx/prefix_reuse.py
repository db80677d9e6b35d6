"""A turn of a conversation processes again what the turns before it have processed.

What the user sees: with ``--continuous-batching`` most turns of Gemma 4 take as long as the whole
conversation: the next turn of a chat, one that is edited, and the calls of an agent's loop.

Why: a sliding window cannot be rewound, so the server can go on only from a place it has kept. It
keeps the end of a prompt that it did not know at all, behind what the chat template leaves out of
the next one, and nothing where it found a beginning.

What is added: the places where Gemma 4's prompts part (``gemma4.prefix_cuts``) and the ends of
answers are kept, as the rows of the windows there and one copy of the other layers
(``gemma4.prefix_store``), in place of the host's entries and within their limit and
``MLX_GEMMA4_PATCHES_PREFIX_BYTES``. They are taken out of the caches after each step of the
prefill, which is split nowhere for it. Pictures and sounds are part of what two prompts have in
common, by their content (``gemma4.media_ids``). With ``--kv-cache-quantization`` the host's entries
stay. It can be deleted when the host keeps such places.

Upstream: none known.
"""

from __future__ import annotations

import functools
from typing import Any

import mlx.core as mx

from ...gemma4 import prefix_limit, tiny
from ...gemma4.media_ids import NAMES, Seen
from ...gemma4.placeholders import Placeholders, among
from ...gemma4.prefix_cuts import cuts
from ...hosts.mlx_vlm.models import is_gemma4
from ...hosts.mlx_vlm.tiny import model
from ...hosts.vllm_mlx.disk import TieredStore
from ...hosts.vllm_mlx.prefixes import reads, watch
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_GENERATOR = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator"
_CACHE = "vllm_mlx.memory_cache:MemoryAwarePrefixCache"
_STORES = ("store", "prepare_store")
_PREFIXES = "_gemma4_prefixes"
_PLACEHOLDERS = "_gemma4_placeholders"
_IDS = "_gemma4_ids"  # of a request with media, by which it is kept
_MODEL_KEY = "text"  # the host keeps a cache per model


def probe() -> Finding:
    from vllm_mlx import mllm_batch_generator
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache

    if not hasattr(mllm_batch_generator.MLLMBatchGenerator, "_maybe_store_prefix_cache"):
        raise NotApplicable("this vllm-mlx keeps nothing of multimodal models")
    language_model = model("dense").language_model
    cache = MemoryAwarePrefixCache(language_model)
    prompt = [2, 105, 110, *tiny.prompt(24), 106, 105, 120, 100, 7, 101]  # an empty thought
    then = [*prompt[:-3], 9, 106, 105, 110, 8, 8, 106, 105, 120]  # is left out of the next prompt
    cache.fetch(prompt)
    try:
        language_model(mx.array([prompt]), cache=language_model.make_cache())
    except TypeError as error:  # the host has put the attention of another release into the model
        raise NotApplicable(f"beside this mlx-vlm no prompt is read: {error}") from None
    wanted = len(prompt) - 3
    found = len(then) - len(cache.fetch(then)[1])
    return Finding(found < wanted, f"of {wanted} tokens that two turns share {found} are kept")


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_CACHE}.__init__", _opening)
    surgery.wrap(f"{_GENERATOR}.__init__", _knowing)
    surgery.wrap(f"{_GENERATOR}._run_vision_encoding", _going_on)
    surgery.wrap(f"{_GENERATOR}._maybe_store_prefix_cache", _keep_answers)
    surgery.wrap(f"{_CACHE}.fetch", _fetch)
    surgery.wrap(f"{_CACHE}.clear", _clear)
    for name in _STORES:
        if f"{_CACHE}.{name}" in surgery.targets:
            surgery.wrap(f"{_CACHE}.{name}", _store)
    watch(surgery)


def _store_of(cache: Any) -> TieredStore | None:
    return None if cache is None else vars(cache).get(_PREFIXES)


def _keep(cache: Any, ids: list[int], caches: list[Any], lengths: list[int]) -> None:
    ours, store = prefix_limit.limit(), _store_of(cache)
    store.add(_MODEL_KEY, ids, caches, lengths)
    store.trim(nbytes=cache._max_memory if ours is None else min(ours, cache._max_memory))


def _opening(original):
    def __init__(self, model, config=None):
        original(self, model, config)
        quantizes = getattr(self._config, "kv_quantize", False)
        if is_gemma4(model) and not quantizes and prefix_limit.limit() != 0:
            vars(self)[_PREFIXES] = TieredStore(self, model)

    return __init__


def _find(cache: Any, ids: list[int]) -> tuple[int, list[Any] | None]:
    store = _store_of(cache)
    store.bring(_MODEL_KEY, ids)
    length, caches = store.find(_MODEL_KEY, ids)
    if caches is None:
        cache._stats.misses += 1
    else:
        cache._stats.hits += 1
        cache._stats.tokens_saved += length
    return length, caches


def _knowing(original):
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if (store := _store_of(self.prefix_cache)) is not None:
            store.checkpoint = self.model  # that sees and hears
            vars(self.prefix_cache)[_PLACEHOLDERS] = Placeholders.of(self.model.config)

    return __init__


def _fetch(original):
    def fetch(self, tokens):
        if _store_of(self) is None:
            return original(self, tokens)
        if _shows(self, tokens):  # asked for by releases that would read them as text
            return None, tokens
        length, caches = _find(self, tokens)
        reads(list(tokens), length, functools.partial(_keep, self))
        return caches, tokens if caches is None else tokens[length:]

    return fetch


def _shows(cache: Any, tokens: list[int]) -> bool:
    """Whether there are media in a prompt."""
    known = vars(cache).get(_PLACEHOLDERS, Placeholders())
    return among(mx.array(tokens), (known.image, known.video, known.audio)).any().item()


def _going_on(original):
    def _run_vision_encoding(self, request, cache=None):
        if cache is None or _store_of(getattr(self, "prefix_cache", None)) is None:
            return original(self, request, cache)
        row = request.input_ids
        ids = row.reshape(-1).tolist()
        inputs = {**request.extra_kwargs, "pixel_values": request.pixel_values}
        try:
            seen = Seen(ids, inputs, vars(self.prefix_cache)[_PLACEHOLDERS])
        except ValueError:
            return original(self, request, cache)
        vars(request)[_IDS] = seen.ids
        length, found = _find(self.prefix_cache, seen.ids)
        if found is not None:
            cache[:] = found
            _leave_out(request, length, len(ids), seen)
        made = original(self, request, cache)
        request.input_ids = row
        _keep(self.prefix_cache, seen.ids, cache, [cut for cut in cuts(ids) if cut > length])
        return made

    return _run_vision_encoding


def _leave_out(request: Any, start: int, length: int, seen: Seen) -> None:
    """Leave out the first tokens of a request, and their media."""

    def behind(value: Any) -> Any:
        aligned = isinstance(value, mx.array) and value.ndim > 1 and value.shape[1] == length
        return value[:, start:] if aligned else value

    left = seen.behind(start)
    request.input_ids = request.input_ids.reshape(1, -1)[:, start:]
    request.attention_mask = behind(request.attention_mask)
    request.pixel_values = left.pop("pixel_values", None)
    rest = {k: behind(v) for k, v in request.extra_kwargs.items() if k not in NAMES}
    request.extra_kwargs = {**rest, **left}


def _store(original):
    def store(self, *args, **kwargs):
        return original(self, *args, **kwargs) if _store_of(self) is None else None

    return store


def _clear(original):
    def clear(self, *args, **kwargs):
        if (store := _store_of(self)) is not None:
            store.trim(count=0)
        return original(self, *args, **kwargs)

    return clear


def _keep_answers(original):
    def _maybe_store_prefix_cache(self, batch, end_indices):
        if _store_of(self.prefix_cache) is None:
            return original(self, batch, end_indices)
        for index in end_indices:
            request = batch.requests[index]
            ids = vars(request).get(_IDS)
            if ids is None and request.is_text_only:
                ids = request.input_ids.reshape(-1).tolist()
            if ids is not None:
                caches = batch.extract_cache(index)
                ids = [*ids, *request.output_tokens]
                _keep(self.prefix_cache, ids, caches, [min(len(ids), caches[0].offset)])
        return None

    return _maybe_store_prefix_cache


PATCH = Patch(
    id="vllm_mlx.prefix_reuse",
    targets=(
        f"{_CACHE}.__init__",
        f"{_GENERATOR}.__init__",
        f"{_GENERATOR}._run_vision_encoding",
        f"{_GENERATOR}._maybe_store_prefix_cache",
        f"{_CACHE}.fetch",
        f"{_CACHE}.clear",
        *(f"{_CACHE}.{name}" for name in _STORES),
    ),
    apply=apply,
    probe=probe,
)
