"""From embedding rows back to token ids, exactly, for any embedding table.

Gemma 4 E2B and E4B add per-layer inputs that are looked up by token id. Where only the embeddings
of a prompt are given, the ids have to be found again.

Every row of the table is hashed once, multilinearly: some of its values, as 16-bit words, each
times a random 64-bit number, summed modulo 2^64 (Carter and Wegman, 1979). Rows that share a hash
are compared; if they differ, the table is hashed anew over more values. A lookup hashes its rows,
reads the few candidates of one bucket and compares the row it found: no cost grows with V.
"""

from __future__ import annotations

import itertools
import random
import weakref

import mlx.core as mx
import mlx.nn as nn

_VALUES = 64  # of a row, hashed in the first attempt
_CHUNK = 8 << 20  # bytes worked on at a time while the table is hashed
_SHOWN = 8  # positions named in an error


def token_ids(table: nn.Module, rows: mx.array) -> mx.array:
    """The token ids whose embeddings are ``rows``.

    The first call on a table hashes it; the hashes, about 16 bytes a row, are kept while the
    table's arrays are alive and in place.

    Args:
        table: an ``Embedding`` or ``QuantizedEmbedding`` of vocabulary V and width D, or a module
            like them: ``table.weight`` has V rows and ``table(ids)`` returns rows.
        rows: (..., D), not empty, in any float dtype. A row is found where it equals ``table(id)``
            value for value: -0.0 equals 0.0, a float32 copy of a bfloat16 row equals that row.

    Returns:
        int32 ids (...). A row that the table holds several times gives its lowest id.

    Raises:
        ValueError: some rows are not in the table, NaN among them; or their width is not D.
    """
    ids, found = find(table, rows)
    if not found.all().item():
        _indexes.pop(id(table.weight), None)  # the table may have been changed in place since
        ids, found = find(table, rows)
        _require(found)
    return ids


def find(table: nn.Module, rows: mx.array) -> tuple[mx.array, mx.array]:
    """As ``token_ids``, with a mask in place of the error, and without evaluating ``rows``.

    So ``mx.compile`` can trace it, as long as the table is not traced with it.

    Returns:
        int32 ids (...) and a boolean mask (...); an id means nothing where the mask is False.
    """
    index = _index_of(table)
    if rows.shape[-1] != index.width:
        raise ValueError(
            f"embeddings of width {rows.shape[-1]} cannot be rows of a table of width {index.width}"
        )
    ids = index.candidates(mx.atleast_2d(rows))  # no quantized table looks up a scalar
    found = mx.stop_gradient(table(ids) == rows).all(-1)
    return ids.reshape(rows.shape[:-1]), found.reshape(rows.shape[:-1])


def is_traced(array: mx.array) -> bool:
    """Whether ``array`` has no values yet, because ``mx.compile`` or ``mx.vmap`` is tracing it."""
    try:
        mx.eval(array)
    except ValueError:
        return True
    return False


class _Index:
    """The distinct hashes of a table's rows, sorted, with the lowest id of each.

    It knows its table by weak references to the arrays, and so keeps none of them alive. It is
    evaluated when built: a lazy array of one thread cannot be evaluated in another.
    """

    def __init__(self, table: nn.Module):
        key = id(table.weight)
        self._arrays = [
            weakref.ref(array, lambda _: _indexes.pop(key, None)) for array in _arrays(table)
        ]
        self._vocabulary = len(table.weight)
        row = table(mx.array([0]))
        self.width, self._dtype = row.shape[-1], row.dtype
        for attempt in itertools.count():
            if self._hash_table(table, attempt):
                break
        self._fill_buckets()

    def is_of(self, table: nn.Module) -> bool:
        arrays = _arrays(table)
        return len(arrays) == len(self._arrays) and all(
            array is ref() for array, ref in zip(arrays, self._arrays, strict=True)
        )

    def candidates(self, rows: mx.array) -> mx.array:
        """The only id, int32, that each row can have; any id where there is none."""
        hashes = self._hash(rows.astype(self._dtype))
        places = self._starts[self._bucket(hashes)][..., None] + self._steps
        return mx.where(self._hashes[places] == hashes[..., None], self._ids[places], 0).sum(-1)

    def _hash_table(self, table: nn.Module, attempt: int) -> bool:
        """Hash every row; False if two rows that differ have one hash."""
        self._stride = max(1, self.width // (_VALUES << attempt))
        values = len(range(0, self.width, self._stride))
        self._multipliers = _random_odd(values * self._dtype.size // 2, seed=attempt)
        hashes = []
        for ids in self._chunks(mx.arange(self._vocabulary, dtype=mx.int32)):
            hashes.append(self._hash(table(ids)))
            mx.eval(hashes[-1])

        hashes = mx.concatenate(hashes)
        order = mx.argsort(hashes).astype(mx.int32)
        hashes = hashes[order]
        group = mx.cumsum(mx.concatenate([mx.array([False]), hashes[1:] != hashes[:-1]]))
        groups = group[-1].item() + 1
        unset = mx.full(groups, self._vocabulary, mx.int32)
        self._ids = unset.at[group].minimum(order)
        self._hashes = hashes[unset.at[group].minimum(mx.arange(len(order), dtype=mx.int32))]

        lowest = self._ids[group]
        repeats = mx.argsort((order != lowest).astype(mx.uint8))[groups:]
        return all(
            mx.array_equal(table(order[chunk]), table(lowest[chunk]), equal_nan=True).item()
            for chunk in self._chunks(repeats)
        )

    def _fill_buckets(self) -> None:
        """A bucket is the stretch of hashes that begin with the same bits."""
        bits = max(1, (self._vocabulary - 1).bit_length())
        self._shift = 64 - bits
        bucket = self._bucket(self._hashes)
        places = mx.arange(len(self._hashes), dtype=mx.int32)
        fullest = mx.zeros(1 << bits, mx.int32).at[bucket].add(1).max().item()
        self._steps = mx.arange(fullest, dtype=mx.int32)
        last = len(places) - fullest  # so that no bucket is read past the end
        self._starts = mx.full(1 << bits, last, mx.int32).at[bucket].minimum(places)
        mx.eval(self._multipliers, self._hashes, self._ids, self._starts, self._steps)

    def _hash(self, rows: mx.array) -> mx.array:
        values = mx.stop_gradient(rows)[..., :: self._stride]
        # -0.0 as 0.0; a scalar in place of zeros breaks the view of one value on mlx 0.31.2
        words = mx.where(values == 0, mx.zeros_like(values), values).view(mx.uint16)
        return (words.astype(mx.uint64) * self._multipliers).sum(-1)

    def _bucket(self, hashes: mx.array) -> mx.array:
        return (hashes >> self._shift).astype(mx.int32)

    def _chunks(self, ids: mx.array) -> list[mx.array]:
        row = self.width * self._dtype.size + 24 * len(self._multipliers)
        size = max(1, _CHUNK // row)
        return [ids[i : i + size] for i in range(0, len(ids), size)]


_indexes: dict[int, _Index] = {}  # by id(table.weight)


def _index_of(table: nn.Module) -> _Index:
    index = _indexes.get(id(table.weight))
    if index is None or not index.is_of(table):
        index = _indexes[id(table.weight)] = _Index(table)
    return index


def _arrays(table: nn.Module) -> list[mx.array]:
    return [value for value in table.values() if isinstance(value, mx.array)]


def _random_odd(count: int, seed: int) -> mx.array:
    """uint64 (count,), without touching MLX's random state."""
    draw = random.Random(seed).getrandbits
    halves = mx.array([draw(32) for _ in range(2 * count)], mx.uint32)
    return halves.view(mx.uint64) | 1


def _require(found: mx.array) -> None:
    flags = found.reshape(-1).tolist()
    missing = [place for place, flag in enumerate(flags) if not flag]
    if not missing:
        return
    shown = ", ".join(str(_position(place, found.shape)) for place in missing[:_SHOWN])
    if len(missing) > _SHOWN:
        shown += ", ..."
    raise ValueError(
        f"{len(missing)} of {len(flags)} embeddings are not rows of the embedding table, at "
        f"{shown}, so no token id, and no per-layer input, belongs to them. Pass the token ids "
        "along with the embeddings, or per_layer_inputs."
    )


def _position(place: int, shape: tuple[int, ...]) -> list[int]:
    position = []
    for size in reversed(shape):
        place, at = divmod(place, size)
        position.insert(0, at)
    return position
