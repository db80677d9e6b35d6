"""Two measurements in turn, and the row of figures that comes of it.

Each figure is a median over rounds; the order within a round alternates. A ratio is the median of
the rounds' ratios, so that a machine that slows down on the way does not show in it. The noise is
what the first of the two differs by from itself in the same rounds: a ratio nearer to 1 says
nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .. import engine, status

STOCK_AND_PATCHED = ("stock", "patched")


def compare(
    table: str,
    what: str,
    unit: str,
    measure: Callable[[], float],
    other: Callable[[], float],
    rounds: int,
    columns: tuple[str, str] = STOCK_AND_PATCHED,
) -> dict[str, Any]:
    """The row of one figure.

    Args:
        table: the kind of figure; rows of one kind are shown together.
        measure, other: each measures once; seconds for the unit ms, else what the unit says.
        columns: what they are called.

    Returns:
        See ``row``.
    """
    measure(), other()  # warm
    first, second, again = [], [], []
    for number in range(rounds):
        steps = [(measure, first), (other, second), (measure, again)]
        for step, figures in steps[::-1] if number % 2 else steps:
            figures.append(step())
    if unit == "ms":
        first, second, again = ([1e3 * x for x in figures] for figures in (first, second, again))
    return row(table, what, unit, columns, (first, second, again))


def row(
    table: str, what: str, unit: str, columns: tuple[str, str], figures: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """A row of figures: of the first, of the second, and of the first again, round by round.

    Returns:
        ``table``, ``what``, ``unit``, ``columns`` (two names, each a key with its figure),
        ``ratio`` (second : first), ``spread`` (lowest and highest ratio) and ``noise`` (how far
        from 1 the ratio of the first to itself is, its median).
    """
    first, second, again = figures
    ratios = [after / before for before, after in zip(first, second, strict=True) if before]
    noise = [abs(y / x - 1) for x, y in zip(first, again, strict=True) if x]
    return {
        "table": table,
        "what": what,
        "unit": unit,
        "columns": list(columns),
        columns[0]: statistics.median([*first, *again]),
        columns[1]: statistics.median(second),
        "ratio": statistics.median(ratios) if ratios else 1.0,
        "spread": [min(ratios), max(ratios)] if ratios else [1.0, 1.0],
        "noise": statistics.median(noise) if noise else 0.0,
    }


def stock_and_patched(measure: Callable[[], float]) -> tuple[Callable, Callable]:
    """``measure`` without any patch, and as it is, with those that this installation needs.

    Raises:
        RuntimeError: the patches are switched off or failed to start.
    """
    if engine.ENGINE is None:
        raise RuntimeError(f"there is nothing to compare: {status()['activation']}")

    records = engine.ENGINE.records

    def stock() -> float:
        for patch_id in records:
            engine.ENGINE.undo(patch_id)
        try:
            return measure()
        finally:  # what is measured next may need them
            for patch_id in records:
                engine.ENGINE.apply(patch_id)

    return stock, measure
