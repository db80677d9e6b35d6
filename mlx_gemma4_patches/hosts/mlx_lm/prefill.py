"""A prompt through the models but for its last token, where the host would do it otherwise."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import mlx.core as mx


class Reader(NamedTuple):
    """A model that reads the prompt, with its part of the list of caches."""

    model: Any
    part: slice
    embedded: Any = None  # in place of the ids, of the same length


def prefill(
    readers: Iterable[Reader],
    ids: mx.array,
    caches: list[Any],
    stops: Iterable[int],
    how: dict[str, Any],
    progress: Callable[[int, int], None],
) -> None:
    """Fill ``caches`` in place, in steps that end at ``stops``.

    Args:
        ids: int (L,).
        how: the arguments of the host's ``generate_step``, with their defaults; those about the
            stream and about quantized caches count here.
        progress: is told after each step how many tokens have been read, and how many there are.
    """
    host = importlib.import_module("mlx_lm.generate")  # the package has a function of that name
    start = 0
    with mx.stream(how.get("stream") or host.generation_stream):
        for stop in stops:
            for model, part, embedded in readers:
                if not (mine := caches[part]):  # an assistant reads nothing itself
                    continue
                more = {}
                if embedded is not None:
                    more["input_embeddings"] = embedded[start:stop][None]
                model(ids[start:stop][None], cache=mine, **more)
                if how.get("kv_bits") is not None:
                    names = ("quantized_kv_start", "kv_group_size", "kv_bits")
                    host.maybe_quantize_kv_cache(mine, *map(how.get, names))
                caches[part] = mine
            mx.eval([cache.state for cache in caches])
            start = stop
            progress(stop, len(ids))
            mx.clear_cache()
