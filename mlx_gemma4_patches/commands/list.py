"""``list``: every patch and its state on the installed hosts."""

from __future__ import annotations

import argparse

from .screen import ERR, OUT, columns, print_json, show_error, state_words


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("list", help="every patch and its state on the installed hosts")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..doctor.examination import examine

    with ERR.status("importing the hosts"):
        found = examine(False, lambda mode, what: None)
    keys = ("id", "state", "reason", "title")
    rows = [{key: patch[key] for key in keys} for patch in found["patches"]]
    if options.json:
        print_json(rows)
    elif rows:
        table = columns("patch", "state", "reason", "what users see without it")
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(row["id"], state_words(row["state"]), row["reason"], row["title"])
        OUT.print(table)
    for problem in found["problems"]:
        show_error(problem)
    return 1 if found["problems"] else 0
