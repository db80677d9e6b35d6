"""With a checkpoint of text alone every turn processes the whole conversation again.

What the user sees: every turn of ``vllm-mlx serve``, with ``--continuous-batching`` or without,
takes as long as the whole conversation, where the checkpoint has no ``vision_config``.

Why: such a checkpoint is read by mlx-lm's model. A sliding window cannot be rewound, so what the
batched engine has kept of an answer, if at all, fits no later prompt; the simple engine makes new
caches for every request.

What is added: the places where Gemma 4's prompts part (``gemma4.prefix_cuts``) and the ends of
answers are kept (``gemma4.prefix_store``), and requests that come at once and begin alike are read
once. The batched engine's limit of memory holds, and ``MLX_GEMMA4_PATCHES_PREFIX_BYTES``; without
batches it is a tenth of the device's memory, 8 GB at most. With ``--kv-cache-quantization`` and
with ``--max-kv-size`` the host's entries stay. It can be deleted when the host keeps such places.

Upstream: none known.
"""

from __future__ import annotations

import inspect
from typing import Any

import mlx.core as mx

from ...gemma4 import prefix_limit, tiny
from ...gemma4.prefix_store import PrefixStore
from ...hosts.mlx_lm import waiting
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_lm.prefixes import Prompt
from ...hosts.vllm_mlx import text_steps
from ...hosts.vllm_mlx.batches import scheduler
from ...hosts.vllm_mlx.disk import TieredStore
from ...patch import Finding, Patch
from ...surgery import Surgery

_LOAD = "vllm_mlx.models.llm:MLXLanguageModel.load"
_ENSURE = "vllm_mlx.scheduler:Scheduler._ensure_batch_generator"
_CACHE = "vllm_mlx.memory_cache:MemoryAwarePrefixCache"
# called for whom keeps nothing too, and then as they are
_INSERT = "mlx_lm.generate:BatchGenerator.insert_segments"
_NEXT = "mlx_lm.generate:BatchGenerator._next"
_PREFIXES = "_gemma4_text_prefixes"
_HOLDS = "_gemma4_holds"  # of the first of caches on their way to a generator: their token ids


def probe() -> Finding:
    made = scheduler()
    generator, cache = made.batch_generator, made.memory_aware_cache
    prompt = tiny.prompt(150)
    generator.insert([prompt], max_tokens=[1], caches=None, logits_processors=[[]])
    while not any(response.finish_reason for response in generator.next()[1]):
        pass
    again = len(cache.fetch(prompt)[1])
    return Finding(again > 1, f"of 150 tokens that come again {again} are processed")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD, _opening)
    surgery.wrap(text_steps.STEP, text_steps.going_on(_PREFIXES))
    surgery.wrap(_ENSURE, _opening_batched)
    surgery.wrap(f"{_CACHE}.fetch", _fetch)
    surgery.wrap(f"{_CACHE}.store", _store)
    surgery.wrap(f"{_CACHE}.clear", _clear)
    surgery.wrap(_INSERT, _noting)
    surgery.wrap(_NEXT, _following)


# One at a time


def _opening(original):
    def load(self):
        made = original(self)
        if is_gemma4(self.model) and prefix_limit.limit() != 0:
            vars(self.model).setdefault(_PREFIXES, PrefixStore())
        return made

    return load


# In a batch


class _Prefixes:
    """What is kept beside a cache of the host, and the requests that a generator reads."""

    def __init__(self, cache: Any, model: Any):
        self.store = TieredStore(cache, model)
        self.prompts: dict[int, Prompt] = {}
        self._cache = cache

    def trim(self) -> None:
        ours, hosts = prefix_limit.limit(), self._cache._max_memory
        self.store.trim(nbytes=hosts if ours is None else min(ours, hosts))


def _opening_batched(original):
    def _ensure_batch_generator(self, sampling_params):
        made = original(self, sampling_params)
        cache, generator = self.memory_aware_cache, self.batch_generator
        if (
            cache is not None
            and hasattr(generator, "_unprocessed_sequences")
            and is_gemma4(self.model)
            and prefix_limit.limit() != 0
            and not getattr(cache._config, "kv_quantize", False)
            and getattr(generator, "max_kv_size", None) is None
        ):
            prefixes = vars(cache).get(_PREFIXES) or _Prefixes(cache, self.model)
            vars(cache)[_PREFIXES] = prefixes
            if vars(generator).get(_PREFIXES) is not prefixes:
                vars(generator)[_PREFIXES] = prefixes
                prefixes.prompts.clear()  # their uids are another generator's
        return made

    return _ensure_batch_generator


def _fetch(original):
    def fetch(self, tokens):
        if (prefixes := vars(self).get(_PREFIXES)) is None:
            return original(self, tokens)
        length, caches = prefixes.store.find(text_steps.MODEL_KEY, tokens)
        self._last_matched_key = None
        if caches is None:
            self._stats.misses += 1
            self._last_match_type = "miss"
            return None, tokens
        self._stats.hits += 1
        self._stats.tokens_saved += length
        self._last_match_type = "prefix"
        # some releases ask in another thread than the one that goes on from them
        mx.eval([(cache.keys, cache.values) for cache in caches])
        vars(caches[0])[_HOLDS] = list(tokens[:length])
        return caches, tokens[length:]

    return fetch


def _store(original):
    def store(self, *args, **kwargs):
        return vars(self).get(_PREFIXES) is None and original(self, *args, **kwargs)

    return store


def _clear(original):
    def clear(self, *args, **kwargs):
        if (prefixes := vars(self).get(_PREFIXES)) is not None:
            prefixes.store.trim(count=0)
        return original(self, *args, **kwargs)

    return clear


def _noting(original):
    signature = inspect.signature(original)

    def insert_segments(self, *args, **kwargs):
        call = signature.bind(self, *args, **kwargs)
        given, prefixes = call.arguments, vars(self).get(_PREFIXES)
        if prefixes is None or len(given["segments"]) != 1 or given.get("all_tokens"):
            return original(self, *args, **kwargs)
        left = [token for segment in given["segments"][0] for token in segment]
        (caches,) = given.get("caches") or [None]
        known = vars(caches[0]).get(_HOLDS) if caches else []
        if known is None:  # made by the host
            return original(self, *args, **kwargs)
        given["all_tokens"] = [known]  # which the host leaves out
        uids = original(*call.args, **call.kwargs)
        prompt = Prompt(prefixes.store, text_steps.MODEL_KEY, known + left)
        prefixes.prompts[uids[0]] = prompt
        return uids

    return insert_segments


def _following(original):
    def _next(self):
        if (prefixes := vars(self).get(_PREFIXES)) is None:
            return original(self)
        made = waiting.step(self, prefixes.prompts, original)
        for said in made[1]:
            if said.finish_reason is not None and said.prompt_cache:
                length = min(len(said.all_tokens), said.prompt_cache[0].offset)
                prefixes.store.add(
                    text_steps.MODEL_KEY, said.all_tokens, said.prompt_cache, [length]
                )
        prefixes.trim()
        return made

    return _next


PATCH = Patch(
    id="vllm_mlx.prefix_reuse_text",
    targets=(_LOAD, _ENSURE, *(f"{_CACHE}.{name}" for name in ("fetch", "store", "clear"))),
    apply=apply,
    probe=probe,
)
