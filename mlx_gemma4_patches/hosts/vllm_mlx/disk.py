"""What is kept of Gemma 4 conversations, and also goes to this host's prefix cache on disk.

An entry of the host's ``SSDCacheTier`` is found by numbers, the host's own by token ids alone,
whichever checkpoint they are of. Here the checkpoint comes first, as numbers that no token has.
Of each place there is an entry with the rows of the windows and the last of full attention. The
rows before those are entries of ``_BLOCK`` tokens each, written once for all that begin alike.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Hashable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ... import __version__
from ...gemma4.prefix_cuts import WORTH_WAITING
from ...gemma4.prefix_rows import is_full, is_window
from ...gemma4.prefix_store import PrefixStore
from ...registry import installed_versions
from ...settings import log

_TIER = "_gemma4_tier"
_STORE = "_gemma4_tiered_store"
_BLOCK = 4096  # tokens
_HEAD = 5  # numbers of a place's key before those of the token ids, which are two each
_SAMPLES = 8  # of each axis of a weight

Rows = tuple[mx.array, mx.array]
Key = tuple[int, ...]


def attach(cache: Any, tier: Any) -> None:
    """``tier`` is the one behind ``cache`` from now on; None if there is none."""
    vars(cache)[_TIER] = tier


class TieredStore(PrefixStore):
    """A store of one model, which writes all that it keeps to the tier behind a cache, if any.

    Args:
        cache: the host's ``MemoryAwarePrefixCache``.
        model: makes the KV caches.
    """

    def __init__(self, cache: Any, model: Any):
        super().__init__()
        self.checkpoint = model  # all that what is kept depends on
        self._cache = cache
        self._model = model
        self._identity: bytes | None = None
        self._queued: set[Key] = set()  # blocks that are not written yet
        vars(cache)[_STORE] = self

    @staticmethod
    def of(cache: Any) -> TieredStore | None:
        """The one beside ``cache``, once there was a Gemma 4."""
        return vars(cache).get(_STORE)

    def add(
        self,
        model: Hashable,
        ids: Sequence[int],
        caches: list[Any],
        lengths: Sequence[int] | None = None,
    ) -> list[int]:
        made = super().add(model, ids, caches, lengths)
        tier = vars(self._cache).get(_TIER)
        for length in made if tier is not None else ():
            text = list(ids[:length])
            if (kept := self.kept(model, text)) is not None:
                try:
                    self._write(tier, text, kept)
                except Exception as error:
                    log.warning("mlx-gemma4-patches: nothing is written to the disk: %r", error)
        return made

    def bring(self, model: Hashable, ids: Sequence[int]) -> bool:
        """Keep in memory, too, what the disk has of the beginning of ``ids``, if it has more."""
        if (tier := vars(self._cache).get(_TIER)) is None:
            return False
        known, most = self.known(model, ids[:-1]), len(ids) - 1
        try:
            while most - known >= WORTH_WAITING:
                found = tier.lookup_ssd_prefix(self._place(ids[:most]))
                most = (found["num_tokens"] - _HEAD) // 2 if found else 0
                if most - known >= WORTH_WAITING:
                    if (caches := self._read(tier, list(ids[:most]))) is not None:
                        super().add(model, ids[:most], caches)
                        return True
                    most -= 1
        except Exception as error:
            log.warning("mlx-gemma4-patches: nothing is read from the disk: %r", error)
        return False

    # Places

    def _write(self, tier: Any, ids: list[int], caches: list[Any]) -> None:
        if not all(is_window(cache) or is_full(cache) for cache in caches):
            return
        begin = 0
        for end, key in self._blocks(ids):
            if _is_there(tier, key):
                self._queued.discard(key)
            elif key not in self._queued:
                if not _put(tier, key, [_cut(c, begin, end) for c in caches if is_full(c)]):
                    return
                self._queued.add(key)
            begin = end
        key = self._place(ids)
        if not _is_there(tier, key):
            _put(tier, key, [_cut(c, 0 if is_window(c) else begin, len(ids)) for c in caches])

    def _read(self, tier: Any, ids: list[int]) -> list[Any] | None:
        from mlx_lm.models.cache import make_prompt_cache

        keys = [key for _, key in self._blocks(ids)]
        if not all(map(tier.lookup_ssd, keys)):
            return None  # the host has dropped some of the rows
        parts = [_get(tier, key) for key in (*keys, self._place(ids))]
        if any(part is None for part in parts):
            return None
        *blocks, last = parts
        caches, layers = make_prompt_cache(self._model), zip(*blocks, strict=True)
        for cache, rows in zip(caches, last, strict=True):
            cache.keys, cache.values = rows
            cache.offset = len(ids)
            if is_window(cache):
                cache._idx = rows[0].shape[-2]
            elif blocks:
                every = zip(*next(layers), rows, strict=True)
                cache.keys, cache.values = (mx.concatenate(x, axis=-2) for x in every)
        # another thread may go on from them
        mx.eval([(cache.keys, cache.values) for cache in caches])
        return caches

    # Keys

    def _place(self, ids: Sequence[int]) -> Key:
        """That of what was kept after ``ids``; those of their beginnings begin it."""
        begin = self._hash(b"place").digest()[: 4 * (_HEAD - 1)]
        return _key(begin + array("q", ids).tobytes())

    def _blocks(self, ids: Sequence[int]) -> Iterator[tuple[int, Key]]:
        """Where the blocks of ``ids`` end whose rows are entries of their own, and their keys."""
        made = self._hash(b"rows")
        for end in range(_BLOCK, len(ids), _BLOCK):
            made.update(array("q", ids[end - _BLOCK : end]).tobytes())
            yield end, _key(made.digest())

    def _hash(self, kind: bytes) -> Any:
        if self._identity is None:
            self._identity = _identity(self.checkpoint)
        return hashlib.sha256(self._identity + kind)


def _key(content: bytes) -> Key:
    return -1, *array("i", content)


def _is_there(tier: Any, key: Key) -> bool:
    """Whether there is such an entry, which is then of use for as long as a new one."""
    if tier.lookup_ssd(key) is None:
        return False
    tier._index.touch(key)
    return True


def _cut(cache: Any, begin: int, end: int) -> Rows:
    return cache.keys[..., begin:end, :], cache.values[..., begin:end, :]


# Entries


def _put(tier: Any, key: Key, layers: list[Rows]) -> bool:
    """Have the host write an entry; False if it has too much to write."""
    plain = [tuple(_without_bfloat16(x) for x in rows) for rows in layers]
    mx.eval(plain)  # the thread that writes cannot compute what is left to be computed here
    made = [
        # ``step`` is written as it is
        SimpleNamespace(keys=rows[0], values=rows[1], offset=0, step=seal)
        for rows, seal in zip(plain, _seals(key, plain), strict=True)
    ]
    return tier.enqueue_spill(key, made, sum(x.nbytes for rows in plain for x in rows))


def _get(tier: Any, key: Key) -> list[Rows] | None:
    """What was put there; of what is damaged, or is something else, nothing is left."""
    path = tier.lookup_ssd(key)["file_path"]
    try:
        layers = tier._read_entry(key, path)
        if layers is None:  # the host has said why and put it aside
            return None
        rows = [(mx.array(layer["keys"]), mx.array(layer["values"])) for layer in layers]
        if [layer.get("step") for layer in layers] != _seals(key, rows):
            raise ValueError("it is not what was written there")
    except Exception as error:
        log.warning("mlx-gemma4-patches: %s of the prefix cache is left out: %r", path, error)
        tier._quarantine_entry(key, path)
        return None
    tier._index.touch(key)
    return [tuple(_with_bfloat16(x) for x in both) for both in rows]


def _seals(key: Key, layers: list[Rows]) -> list[str]:
    """Of each layer what only its rows, under this key, have."""
    sums = [[mx.sum(_numbers(x).astype(mx.uint32)) for x in rows] for rows in layers]
    mx.eval(sums)
    where = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return [f"{where} {keys.item()} {values.item()}" for keys, values in sums]


def _numbers(x: mx.array) -> mx.array:
    return x.view(mx.uint32 if x.dtype.size == 4 else mx.uint16)


def _without_bfloat16(x: mx.array) -> mx.array:
    """The host would write it as float32, of twice the size, or not at all."""
    return x.view(mx.uint16) if x.dtype == mx.bfloat16 else x


def _with_bfloat16(x: mx.array) -> mx.array:
    return x.view(mx.bfloat16) if x.dtype == mx.uint16 else x


def _identity(model: Any) -> bytes:
    """Of all that the rows of a text depend on: some of every weight, settings and versions."""
    weights = sorted(tree_flatten(model.parameters()))
    few = [x[tuple(slice(None, None, n // _SAMPLES + 1) for n in x.shape)] for _, x in weights]
    mx.eval(few)
    made = hashlib.sha256()
    for (name, x), sample in zip(weights, few, strict=True):
        made.update(f"{name} {x.dtype} {x.shape} {sample.tolist()}".encode())
    settings = [getattr(model, name, None) for name in ("config", "args")]
    versions = sorted((name, str(version)) for name, version in installed_versions().items())
    made.update(repr([settings, versions, mx.__version__, __version__]).encode())
    return made.digest()
