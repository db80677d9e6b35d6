"""What the server of mlx-vlm keeps of its Gemma 4 conversations.

The host's prefix cache (APC) looks prompts up and tells requests apart by what else they hold:
images, sound, tenants. Its snapshots are kept here instead, in a ``PrefixStore``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from ...gemma4.prefix_cuts import WORTH_WAITING, cuts, shared
from ...gemma4.prefix_limit import automatic, limit
from ...gemma4.prefix_store import PrefixStore
from .media_key import ids_with_media

_PREFIXES = "_gemma4_prefixes"


class Prefixes:
    """What is kept beside a manager of the host's prefix cache."""

    def __init__(self, manager: Any):
        self.store = PrefixStore()
        self.texts: dict[int, Text] = {}  # of the requests under way, by uid
        self._manager = manager

    @staticmethod
    def of(manager: Any) -> Prefixes | None:
        """Those beside ``manager``, if it serves a Gemma 4."""
        found = getattr(manager, _PREFIXES, None)
        return found if isinstance(found, Prefixes) else None  # a mock answers to every name

    @staticmethod
    def open(manager: Any) -> None:
        """Keep what ``manager`` would keep, from now on."""
        vars(manager).setdefault(_PREFIXES, Prefixes(manager))

    def text(self, uid: int, model: int, ids: Sequence[int]) -> Text:
        """The text of a request that is read."""
        text = self.texts.get(uid)
        if text is None or text.model != model or text.ids[: len(ids)] != list(ids):
            text = self.texts[uid] = Text(model, list(ids))
        return text

    def forget_all_but(self, uids: Sequence[int]) -> None:
        """Forget the texts of requests that have been cancelled."""
        self.texts = {uid: text for uid, text in self.texts.items() if uid in uids}

    def keep(self, text: Text, caches: list[Any], lengths: list[int]) -> None:
        self.store.add(text.model, text.ids, caches, lengths)
        disk = getattr(self._manager, "disk", None)
        for length in lengths if disk is not None else ():
            self._write(disk, text, length)
        self.store.trim(nbytes=self._limit())

    def _write(self, disk: Any, text: Text, length: int) -> None:
        from mlx_vlm.apc import _sequence_hash

        ids = tuple(text.ids[:length])
        if (caches := self.store.kept(text.model, ids)) is not None:
            key = _sequence_hash(ids, text.model, self._manager.block_size)
            # another thread writes it, and cannot compute what this one has left to be computed
            mx.eval([(c.keys, c.values) for c in caches if getattr(c, "keys", None) is not None])
            disk.save_exact_cache(key, ids, text.model, caches)

    def _limit(self) -> int:
        hosts = getattr(self._manager, "memory_max_bytes", None)
        ours = limit()
        if ours is None:
            return automatic() if hosts is None else hosts
        # the host's own automatic figure is no wish of the user's
        return ours if hosts in (None, automatic()) else min(ours, hosts)


class Text:
    """The token ids of a request: its prompt, and what has been answered.

    Args:
        model: what tells it from requests of the same ids, as the host's hash of images.
    """

    def __init__(self, model: int, ids: list[int]):
        self.model = model
        self.ids = ids
        self._cuts = set(cuts(ids))

    def cut_at(self, length: int) -> None:
        """Keep what there is after ``length`` tokens, too."""
        self._cuts.add(length)

    def parts(self, before: int, now: int) -> list[int]:
        """The lengths above ``before``, up to ``now``, that are to be kept."""
        return sorted(cut for cut in self._cuts if before < cut <= now)


def row(caches: Sequence[Any], index: int) -> list[Any]:
    """The caches of one row of a batch, which may be of that row alone and no batch at all."""
    if all(callable(getattr(cache, "extract", None)) for cache in caches):
        return [cache.extract(index) for cache in caches]
    return list(caches)


def hold(generator: Any, prefixes: Prefixes) -> list[tuple]:
    """Take sequences out of the generator's queue that begin like one before them.

    That one is read first, and they go on from what they share.
    """
    left, held, ahead = [], [], []
    for sequence in generator._unprocessed_sequences:
        uid, ids, _, more, *_ = sequence
        key = generator._apc_extra_hash(more or {})
        text = prefixes.text(uid, key, ids_with_media(ids, more))
        known = prefixes.store.known(text.model, text.ids)
        for other in ahead:
            length = shared(text.ids, other.ids) if text.model == other.model else 0
            if length - known >= WORTH_WAITING:
                other.cut_at(length)
                held.append(sequence)
                break
        else:
            left.append(sequence)
            ahead.append(text)
    generator._unprocessed_sequences = left
    return held
