"""Prompts that a text model of mlx-lm reads one at a time, going on from what is kept of others."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ...gemma4 import prefix_limit
from ...gemma4.prefix_cuts import cuts
from ...gemma4.prefix_store import PrefixStore
from ..mlx_lm.prefixes import seeing

STEP = "mlx_lm.generate:generate_step"  # called with models that keep, else as it is
MODEL_KEY = "text"  # a store is of one model


def keep(store: PrefixStore, ids: list[int], caches: list[Any], lengths: list[int]) -> None:
    """Keep what ``caches`` held after so many of ``ids``, within what the user allows."""
    store.add(MODEL_KEY, ids, caches, lengths)
    limit = prefix_limit.limit()
    store.trim(nbytes=prefix_limit.automatic() if limit is None else limit)


def find(
    store: PrefixStore, ids: Sequence[int], caches: Sequence[Any]
) -> tuple[int, list[Any] | None]:
    """The most of ``ids`` that is kept, in caches of the kind that the new ``caches`` are.

    The models of mlx-lm and mlx-vlm share weights and a store, but not the classes of their caches.
    """
    length, found = store.find(MODEL_KEY, ids)
    if found is None:
        return 0, None
    for i, (theirs, own) in enumerate(zip(found, caches, strict=True)):
        if type(theirs).__module__ != type(own).__module__:
            if type(theirs).__name__ != type(own).__name__:  # as of one that has been quantized
                return 0, None
            found[i] = copy.copy(own)
            vars(found[i]).update({k: v for k, v in vars(theirs).items() if k in vars(own)})
    return length, found


def going_on(name: str) -> Callable[[Callable], Callable]:
    """Wraps ``generate_step`` for models that have a store under ``name``."""

    def wrap(original: Callable) -> Callable:
        signature = inspect.signature(original)

        def generate_step(*args, **kwargs):
            call = signature.bind(*args, **kwargs)
            given = call.arguments
            store = getattr(given["model"], "__dict__", {}).get(name)
            if (
                store is None
                or given.get("input_embeddings") is not None
                or any(getattr(c, "keys", 0) is not None for c in given.get("prompt_cache") or ())
            ):
                return original(*args, **kwargs)
            return _gone_on(original, call, store)

        return generate_step

    return wrap


def _gone_on(original: Callable, call: inspect.BoundArguments, store: PrefixStore):
    from mlx_lm.models.cache import make_prompt_cache

    given = call.arguments
    ids, said = given["prompt"].tolist(), given.get("prompt_progress_callback")
    caches = given.get("prompt_cache")
    if caches is None:
        caches = make_prompt_cache(given["model"], max_kv_size=given.get("max_kv_size"))
        given["prompt_cache"] = caches
    start, found = find(store, ids, caches)
    if found is not None:
        caches[:] = found
        given["prompt"] = given["prompt"][start:]
        given["logits_processors"] = seeing(given.get("logits_processors"), ids[:start])
    prompt, done, places = list(ids), start, cuts(ids)

    def progress(processed: int, total: int) -> None:
        nonlocal done
        now = start + processed
        if parts := [cut for cut in places if done < cut <= now]:
            keep(store, prompt, caches, parts)
        done = now
        if said is not None:
            said(processed, total)

    given["prompt_progress_callback"] = progress
    try:
        for token, logprobs in original(*call.args, **call.kwargs):
            ids.append(int(token))
            yield token, logprobs
    finally:
        keep(store, ids, caches, [min(len(ids), caches[0].offset)])
