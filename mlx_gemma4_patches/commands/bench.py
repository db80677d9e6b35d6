"""``bench``: what the patches cost and save."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..gemma4.sizes import NAMES
from .screen import ERR, OUT, columns, paragraph, print_json, record, show_error

_MEANING = (
    "Figures are medians; ratio is the second to the first; spread is the lowest and highest ratio "
    "of a round; noise is how far two runs of the first column differ in the same rounds. A ratio "
    "nearer to 1 than the noise says nothing."
)


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "bench",
        help="what the patches cost and save, as ratios patched : stock",
        description="Measure stock and patched in turn: start-up, import, the wrappers' own time, "
        "what single patches change, and generation - time to first token, tokens per second, peak "
        "memory, one request and a batch - each in a process of its own. " + _MEANING,
        epilog="Examples: `mlx-gemma4-patches bench` runs on any machine in some minutes. "
        "`mlx-gemma4-patches bench --size 26b-a4b --bits 4` measures generation with random "
        "weights, `bench --model PATH` with yours. Exit codes: 0 measured, 1 something failed, 2 "
        "usage.",
    )
    parser.add_argument(
        "--size",
        choices=("tiny", *NAMES),
        default="tiny",
        help="of random weights (default: tiny, with all other figures); memory must allow it",
    )
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantize the random weights")
    parser.add_argument(
        "--model", metavar="PATH", help="a model folder, or a name in the local Hugging Face cache"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from .. import bench
    from ..children import Ended
    from ..doctor.checkpoint_files import locate

    model = options.model and locate(options.model)
    if options.model and model is None:
        show_error(f"{options.model} is neither a folder nor in the local Hugging Face cache")
        return 2
    rows = []
    try:
        with ERR.status("measuring start-up") as progress:
            folder = model and str(model)
            for row in bench.run(options.size, progress.update, folder, options.bits):
                rows.append(row)
    except (ImportError, RuntimeError, Ended) as error:
        show_error(error)
    done = bool(rows) and not any("error" in row for row in rows)
    if options.json:
        print_json(rows)
    elif OUT.is_terminal:
        _print(rows)
    else:
        for row in rows:
            record(*_fields(row))
    for row in rows:
        if "error" in row:
            show_error(f"{row['what']}: {row['error']}")
    return 0 if done else 1


def _print(rows: list[dict[str, Any]]) -> None:
    for title, names, members in _tables([row for row in rows if "error" not in row]):
        paragraph("", label=title)
        table = columns("what", *names, "ratio", "spread", "noise")
        for row in members:
            table.add_row(*_cells(row))
        OUT.print(table)
        OUT.print()
    if any("error" not in row for row in rows):
        paragraph(_MEANING)


def _tables(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[str], list[dict[str, Any]]]]:
    """Rows of one kind that compare the same things, together."""
    kinds = dict.fromkeys((row["table"], tuple(row["columns"])) for row in rows)
    for title, names in kinds:
        members = [r for r in rows if (r["table"], tuple(r["columns"])) == (title, names)]
        yield title, list(names), members


def _cells(row: dict[str, Any]) -> list[str]:
    what = f"{row['what']}, {row['unit']}" if row["unit"] else row["what"]
    values = [row[name] for name in row["columns"]]
    figures = (f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}" for value in values)
    low, high = row["spread"]
    spread = f"{low:.3f}-{high:.3f}"
    return [what, *figures, f"{row['ratio']:.3f}", spread, f"{row['noise']:.1%}"]


def _fields(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["table"], row["what"], f"error: {row['error']}"]
    what, first, second, ratio, spread, noise = _cells(row)
    one, two = row["columns"]
    return [row["table"], what, f"{one} {first}", f"{two} {second}", ratio, spread, noise]
