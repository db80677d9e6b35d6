"""Which share of a Gemma 4 each of several machines holds, in tensor parallelism.

Query heads are divided, and key and value heads with them: where there are fewer of those than
machines (E2B has one), each holds the one that its queries read. Inner columns of MLPs and experts
are divided by whole groups of the quantization, evenly or not (26B-A4B has 11 groups of 64 in an
expert). What does not divide stays whole on every machine: routers, norms, the table of words.
"""

from __future__ import annotations

from typing import NamedTuple


class Share(NamedTuple):
    """From ``begin`` to before ``end``."""

    begin: int
    end: int

    def times(self, factor: int) -> Share:
        return Share(self.begin * factor, self.end * factor)


def of(count: int, rank: int, size: int, unit: int = 1) -> Share | None:
    """The share of ``rank`` in ``count`` things that are divided by whole units.

    None where there are fewer units than machines, or they do not make up ``count``.
    """
    units, rest = divmod(count, unit)
    if rest or units < size:
        return None
    return Share(units * rank // size, units * (rank + 1) // size).times(unit)


def of_heads(queries: int, keys: int, rank: int, size: int) -> tuple[Share, Share] | None:
    """The query heads of ``rank``, and the key and value heads that they read.

    None where the heads cannot be divided so that all machines have the same number.
    """
    if queries % size or (keys % size and size % keys):
        return None
    first = rank * keys // size
    return Share(rank, rank + 1).times(queries // size), Share(first, first + max(1, keys // size))
