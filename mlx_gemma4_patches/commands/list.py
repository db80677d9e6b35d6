"""``list``: every patch and its state on the installed hosts."""

from __future__ import annotations

import argparse

from .screen import ERR, OUT, one_line, paragraph, print_json, record, show_error, state_words


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "list",
        help="every patch and its state on the installed hosts",
        description="Every patch, whether it is on here, and what users see without it. Piped: "
        "id, state, reason and title, with tabs between them.",
    )
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
    elif OUT.is_terminal:
        widths = [max((len(text) for text in texts), default=0) for texts in _id_and_state(rows)]
        for row, name, state in zip(rows, *_id_and_state(rows), strict=True):
            one_line(
                (f"{name:<{widths[0]}}  ", "bold"), f"{state:<{widths[1]}}  ", (row["title"], "dim")
            )
        if rows:
            paragraph("`explain ID` tells more")
    else:
        for row in rows:
            record(row["id"], state_words(row["state"]), row["reason"], row["title"])
    for problem in found["problems"]:
        show_error(problem)
    return 1 if found["problems"] else 0


def _id_and_state(rows: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    return [row["id"] for row in rows], [state_words(row["state"]) for row in rows]
