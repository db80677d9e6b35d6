"""Stock and patched in turn, and the row of figures that comes of it.

Each figure is a median over rounds; the order within a round alternates. A ratio is the median of
the rounds' ratios, so that a machine that slows down on the way does not show in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .. import engine, status

Steps = Callable[[list[int], int], Iterator]  # of token ids, and how many to yield


def compare(
    what: str,
    unit: str,
    stock: Callable[[], float],
    patched: Callable[[], float],
    rounds: int,
) -> dict[str, Any]:
    """The row of one figure.

    Args:
        stock, patched: each measures once; seconds for the unit ms, else what the unit says.

    Returns:
        ``what``, ``stock``, ``patched``, ``ratio`` (patched : stock), ``unit``.
    """
    stock(), patched()  # warm
    pairs = []
    for number in range(rounds):
        if number % 2:
            after = patched()
            pairs.append((stock(), after))
        else:
            pairs.append((stock(), patched()))
    factor = 1e3 if unit == "ms" else 1.0
    return {
        "what": what,
        "stock": statistics.median(before for before, _ in pairs) * factor,
        "patched": statistics.median(after for _, after in pairs) * factor,
        "ratio": statistics.median(after / before for before, after in pairs),
        "unit": unit,
    }


def stock_and_patched(measure: Callable[[], float]) -> tuple[Callable, Callable]:
    """``measure`` without any patch, and with those that this installation needs.

    Raises:
        RuntimeError: the patches are switched off or failed to start.
    """
    if engine.ENGINE is None:
        raise RuntimeError(f"there is nothing to compare: {status()['activation']}")

    def stock() -> float:
        for patch_id in engine.ENGINE.records:
            engine.ENGINE.undo(patch_id)
        return measure()

    def patched() -> float:
        for patch_id in engine.ENGINE.records:
            engine.ENGINE.apply(patch_id)
        return measure()

    return stock, patched


def prefill_and_decode(what: str, steps: Steps) -> Iterator[dict[str, Any]]:
    """Milliseconds a token of a prompt of 512 tokens, and of 32 tokens that follow a prompt."""
    from ..gemma4 import tiny

    def decode(count: int = 32) -> float:
        said = steps(tiny.prompt(32), count + 1)
        next(said)  # the prompt
        start = time.perf_counter()
        for _ in said:
            pass
        return (time.perf_counter() - start) / count

    prefill = partial(seconds_a_token, steps, tiny.prompt(512))
    # short rounds, and many
    yield compare(f"prefill, {what}", "ms", *stock_and_patched(prefill), 31)
    yield compare(f"decode, {what}", "ms", *stock_and_patched(decode), 31)


def seconds_a_token(steps: Steps, ids: list[int]) -> float:
    """Seconds that a prompt takes, by its length."""
    start = time.perf_counter()
    next(steps(ids, 1))
    return (time.perf_counter() - start) / len(ids)
