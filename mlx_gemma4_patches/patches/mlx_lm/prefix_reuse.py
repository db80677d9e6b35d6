"""A turn of a conversation processes again what the turns before it have processed.

What the user sees: every turn with tools and thoughts takes as long as the whole conversation; so
does every turn of a request that is served alone, as with a seed, a draft model, ``--kv-bits`` or
images.

Why: a sliding window cannot be rewound, so the server can go on only from a place it has kept, and
it keeps few: two in the prompt if the last message is a user's, and the end of the answer, which
the chat template writes otherwise in the next prompt. Each is a full copy of what the
full-attention layers hold.

What is added: the places where Gemma 4's prompts part (``gemma4.prefix_cuts``) are kept, as the
rows of the windows there and one copy of the other layers (``gemma4.prefix_store``), within the
server's own limits and ``MLX_GEMMA4_PATCHES_PREFIX_BYTES``. They are taken out of the caches after
each step of the prefill, which is split nowhere for it. It can be deleted when mlx-lm keeps such
places.

Upstream: ml-explore/mlx-lm#980 (open), #1437, #1596 (closed without a merge).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from ...gemma4 import prefix_limit, tiny
from ...hosts.mlx_lm import prefixes, waiting
from ...hosts.mlx_lm.models import is_assistant, is_gemma4
from ...hosts.mlx_lm.prefill import Reader, prefill
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TOKENIZE = "mlx_lm.server:ResponseGenerator._tokenize"
_STREAM = "mlx_lm.generate:stream_generate"
_BATCH = "mlx_lm.generate:BatchGenerator"
_CACHE = "mlx_lm.models.cache:LRUPromptCache"
_PROMPTS = "_gemma4_prompts"  # of a batch generator: what it was given, by uid


def probe() -> Finding:
    try:
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.models import gemma4  # noqa: F401
        from mlx_lm.models.cache import LRUPromptCache
        from mlx_lm.server import ResponseGenerator
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4, or its server no such cache") from None

    model, kept = text_model("dense"), LRUPromptCache()
    server = ResponseGenerator.__new__(ResponseGenerator)
    server.prompt_cache, server.model_provider = kept, _Provider(model)
    prompt = tiny.prompt(24)
    prompt, segments, *_ = server._tokenize(_Tokenizer(), _Request(prompt), None)
    generator = BatchGenerator(model, max_tokens=1)
    generator.insert_segments([segments])
    while not generator.next()[1]:
        pass
    _, rest = kept.fetch_nearest_cache(_Provider.model_key, prompt)
    again = len(rest)
    return Finding(again > 1, f"a prompt that comes again is processed from {again} tokens on")


class _Provider:
    model_key = "a model"

    def __init__(self, model: Any):
        self.model = model


class _Tokenizer:
    def encode(self, prompt: list[int]) -> list[int]:
        return prompt


class _Request:
    request_type = "text"

    def __init__(self, prompt: list[int]):
        self.prompt = prompt


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TOKENIZE, _announcing)
    surgery.wrap(_STREAM, _keeping)
    surgery.wrap(f"{_BATCH}.insert_segments", _noting)
    surgery.wrap(f"{_BATCH}._next", _following)
    surgery.wrap(f"{_CACHE}.fetch_nearest_cache", _fetch)
    trim_others = surgery.resolve(f"{_CACHE}.trim_to")
    surgery.wrap(f"{_CACHE}.insert_cache", functools.partial(_insert, trim_others))
    surgery.wrap(f"{_CACHE}.trim_to", _trim)
    surgery.wrap(f"{_CACHE}.__len__", _count)
    surgery.wrap_property(f"{_CACHE}.nbytes", fget=_nbytes)


def _announcing(original):
    def _tokenize(self, tokenizer, request, args):
        made = original(self, tokenizer, request, args)
        prefixes.announce(None)
        if prefix_limit.limit() == 0 or not is_gemma4(getattr(self.model_provider, "model", None)):
            return made
        prompt, _, _, state, *vision = made
        model = self.model_provider.model_key
        store = prefixes.open_store(self.prompt_cache, model)
        ids = vision[0].cache_key if vision and vision[0] is not None else prompt
        prefixes.announce(prefixes.Prompt(store, model, list(ids)))
        # one segment of no type: the server itself keeps nothing in mid-prompt
        return (prompt, [prompt], [], state, *vision)

    return _tokenize


# In a batch


def _noting(original):
    signature = inspect.signature(original)

    def insert_segments(self, *args, **kwargs):
        prompt = prefixes.take()
        uids = original(self, *args, **kwargs)
        segments = signature.bind(self, *args, **kwargs).arguments["segments"]
        if prompt is not None and len(segments) == len(uids) == 1:
            vars(self).setdefault(_PROMPTS, {})[uids[0]] = prompt
        return uids

    return insert_segments


def _following(original):
    def _next(self):
        return waiting.step(self, vars(self).get(_PROMPTS), original)

    return _next


# One at a time


def _keeping(original):
    def stream_generate(*args, **kwargs):
        prompt = prefixes.take()
        if prompt is None:
            return original(*args, **kwargs)
        caches, said = kwargs["prompt_cache"], kwargs.get("prompt_progress_callback")
        done = start = len(prompt.ids) - len(kwargs["prompt"])
        known = prompt.ids[:start]
        draft, has_media = kwargs.get("draft_model"), kwargs.get("input_embeddings") is not None
        if draft is None or is_assistant(draft):  # else they are not shown the prompt at all
            processors = kwargs.get("logits_processors")
            is_read = draft is not None and not has_media and prefixes.shows_prompts()
            read = prompt.ids[:-1] if is_read else known
            kwargs["logits_processors"] = prefixes.seeing(processors, read)

        def progress(processed, total):
            nonlocal done
            if parts := prompt.parts(done, start + processed):
                prompt.keep(caches, parts)
            done = start + processed
            if said is not None:
                said(processed, total)

        # the host says nothing of its progress; where there are pictures, their patch does
        if draft is not None and not has_media:
            kwargs["prompt"] = _prefilled(kwargs, progress)
        return original(*args, **{**kwargs, "prompt_progress_callback": progress})

    return stream_generate


def _prefilled(given: dict[str, Any], progress: Callable[[int, int], None]) -> list[int]:
    """What is left of the prompt when both models have read it but for its last token."""
    from mlx_lm.models.cache import make_prompt_cache

    ids, step = given["prompt"], given["prefill_step_size"]
    own = len(make_prompt_cache(given["model"]))
    readers = (Reader(given["model"], slice(own)), Reader(given["draft_model"], slice(own, None)))
    stops = [*range(step, len(ids) - 1, step), len(ids) - 1] if len(ids) > 1 else []
    prefill(readers, mx.array(ids), given["prompt_cache"], stops, given, progress)
    return ids[-1:]


# What is kept


def _fetch(original):
    def fetch_nearest_cache(self, model, tokens):
        if not prefixes.serves(self, model):
            return original(self, model, tokens)
        length, caches = prefixes.store_of(self).find(model, tokens)
        return caches, tokens[length:]

    return fetch_nearest_cache


def _insert(trim_others, original):
    """What the model at work keeps has room before what others have left."""

    def insert_cache(self, model, tokens, prompt_cache, **how):
        store = prefixes.store_of(self)
        if prefixes.serves(self, model):
            store.add(model, tokens, prompt_cache)
            room = max(0, self.max_size - len(store)), max(0, self.max_bytes - store.nbytes)
            trim_others(self, n_sequences=room[0], n_bytes=room[1])
        else:
            original(self, model, tokens, prompt_cache, **how)
        if store is not None:
            store.trim(self.max_size - len(self._lru), self.max_bytes - self._n_bytes)
            prefixes.bound(store)

    return insert_cache


def _trim(original):
    def trim_to(self, *, n_sequences=None, n_bytes=None):
        original(self, n_sequences=n_sequences, n_bytes=n_bytes)
        if (store := prefixes.store_of(self)) is not None:
            count = None if n_sequences is None else max(0, n_sequences - len(self._lru))
            store.trim(count, None if n_bytes is None else max(0, n_bytes - self._n_bytes))

    return trim_to


def _count(original):
    def __len__(self):
        return original(self) + len(prefixes.store_of(self) or ())

    return __len__


def _nbytes(original):
    def nbytes(self):
        store = prefixes.store_of(self)
        return original(self) + (store.nbytes if store is not None else 0)

    return nbytes


PATCH = Patch(
    id="mlx_lm.prefix_reuse",
    targets=(
        _TOKENIZE,
        _STREAM,
        f"{_BATCH}.insert_segments",
        f"{_BATCH}._next",
        *(f"{_CACHE}.{name}" for name in ("fetch_nearest_cache", "insert_cache", "trim_to")),
        *(f"{_CACHE}.{name}" for name in ("__len__", "nbytes")),
    ),
    apply=apply,
    probe=probe,
)
