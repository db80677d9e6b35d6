"""What the server of mlx-lm keeps of its Gemma 4 conversations, and the requests that wait for it.

The server's ``LRUPromptCache`` serves every model it loads. The prefixes of Gemma 4 are kept beside
its own entries, under the same limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from importlib.metadata import version
from typing import Any

import mlx.core as mx
from packaging.version import Version

from ...gemma4.prefix_cuts import cuts, shared
from ...gemma4.prefix_limit import limit
from ...gemma4.prefix_store import PrefixStore

_STORE = "_gemma4_prefixes"
_MODELS = "_gemma4_models"


class Prompt:
    """A prompt on its way through the model.

    Args:
        ids: its tokens, with ids of their own for the parts of images.
    """

    def __init__(self, store: PrefixStore, model: Hashable, ids: list[int]):
        self.store = store
        self.model = model
        self.ids = ids
        self.waited = False
        self._cuts = set(cuts(ids))

    def parts(self, before: int, now: int) -> list[int]:
        """The lengths above ``before``, up to ``now``, that are to be kept."""
        return sorted(cut for cut in self._cuts if before < cut <= now)

    def cut_at(self, length: int) -> None:
        """Keep what there is after ``length`` tokens, too."""
        self._cuts.add(length)

    def shares(self, other: Prompt) -> int:
        """How many first tokens both have, less than all of either."""
        return shared(self.ids, other.ids) if self.model == other.model else 0

    def keep(self, caches: list[Any], lengths: list[int]) -> None:
        """Keep what ``caches`` held after ``lengths`` tokens, all within their last step."""
        self.store.add(self.model, self.ids, caches, lengths)
        bound(self.store)


_here = threading.local()


def announce(prompt: Prompt | None) -> None:
    """Say what the next call of this thread that generates is about."""
    _here.prompt = prompt


def take() -> Prompt | None:
    """What was announced, once."""
    prompt, _here.prompt = getattr(_here, "prompt", None), None
    return prompt


def store_of(prompt_cache: Any) -> PrefixStore | None:
    """The prefixes beside a ``LRUPromptCache``; None before there was a Gemma 4."""
    return vars(prompt_cache).get(_STORE)


def open_store(prompt_cache: Any, model: Hashable) -> PrefixStore:
    """The prefixes beside a ``LRUPromptCache``, from now on also those of ``model``."""
    vars(prompt_cache).setdefault(_MODELS, set()).add(model)
    return vars(prompt_cache).setdefault(_STORE, PrefixStore())


def serves(prompt_cache: Any, model: Hashable) -> bool:
    """Whether the prefixes of ``model`` are kept beside a ``LRUPromptCache``."""
    return model in vars(prompt_cache).get(_MODELS, ())


def bound(store: PrefixStore) -> None:
    """Hold the store to what the user allows it."""
    store.trim(nbytes=limit())


def shows_prompts() -> bool:
    """Whether this mlx-lm shows logits processors all of a prompt, or its last token."""
    return Version(version("mlx-lm")) >= Version("0.32.0")


def seeing(
    processors: list[Callable] | None, ids: list[int]
) -> list[Callable[[mx.array, mx.array], mx.array]] | None:
    """Logits processors that see ``ids`` before the tokens they are given."""
    if not processors or not ids:
        return processors
    before = mx.array(ids)

    def of(processor: Callable) -> Callable:
        return lambda tokens, logits: processor(mx.concatenate([before, tokens]), logits)

    return [of(processor) for processor in processors]
