"""Which layers of a Gemma 4 each of several machines holds, in a pipeline.

The last layers of E2B and E4B read the keys and values of the last layer of their type that has its
own: these stay on one machine, and the layers between them (13 to 34 of E2B's 35, 22 to 41 of E4B's
42). Every machine holds a sliding-window layer: how far a conversation can be taken back depends on
whether there is one, and all machines must come to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def cut(
    layer_types: Sequence[str], shared: int, count: int, sizes: Sequence[int] | None = None
) -> list[range]:
    """The layers of each of ``count`` machines, in their order.

    Args:
        shared: how many layers, the last ones, read the keys and values of others.
        sizes: how many layers each holds; by default all about as many, but for the last where it
            has to hold more.

    Raises ValueError: the layout does not allow it; the message says why.
    """
    total = len(layer_types)
    read = _first_read(layer_types, shared)
    if sizes is None:
        last = max(_even(total, count)[-1], total - read)
        sizes = [*_even(total - last, count - 1), last]
    if len(sizes) != count or sum(sizes) != total or min(sizes) < 1:
        raise ValueError(f"{total} layers cannot be {list(sizes)} on {count} machines")
    made = [range(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]
    if made[-1].start > read:
        raise ValueError(
            f"a machine that holds layer {total - 1} must hold layer {read} too, whose keys and "
            f"values the last layers read; {list(sizes)} layers part them"
        )
    for layers in made:
        if not any(layer_types[i] == "sliding_attention" for i in layers):
            raise ValueError(f"layers {layers[0]} to {layers[-1]} have no sliding window")
    return made


def _first_read(layer_types: Sequence[str], shared: int) -> int:
    """The first layer whose keys and values others read; the number of layers if none is."""
    own = len(layer_types) - shared
    last = {kind: i for i, kind in enumerate(layer_types[:own])}
    return min((last[kind] for kind in layer_types[own:]), default=own)


def _even(total: int, count: int) -> list[int]:
    return [total * (i + 1) // count - total * i // count for i in range(count)]
