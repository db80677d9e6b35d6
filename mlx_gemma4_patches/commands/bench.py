"""``bench``: what the patches cost and save."""

from __future__ import annotations

import argparse

from .screen import ERR, OUT, columns, print_json, show_error


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "bench",
        help="what the patches cost and save, as ratios patched : stock",
        description="Measure start-up, import, reverse lookup and decode, stock and patched "
        "interleaved in one run. Ratios under 1 mean that patched is quicker.",
    )
    parser.add_argument("--size", choices=("tiny", "e2b"), default="tiny", help="model size")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from .. import bench
    from ..children import Ended

    rows = []
    try:
        with ERR.status("measuring start-up") as progress:
            for row in bench.run(options.size):
                rows.append(row)
                progress.update(f"{len(rows)} figures, the last: {row['what']}")
    except (ImportError, RuntimeError, Ended) as error:
        show_error(error)
        return 1
    if options.json:
        print_json(rows)
        return 0
    table = columns("what", "stock", "patched", "patched : stock")
    for row in rows:
        stock, patched = (f"{row[key]:,.2f} {row['unit']}" for key in ("stock", "patched"))
        table.add_row(row["what"], stock, patched, f"{row['ratio']:.3f}")
    OUT.print(table)
    return 0
