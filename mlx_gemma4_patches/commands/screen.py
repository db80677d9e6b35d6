"""What all commands print with: results to stdout, progress and errors to stderr.

On a terminal lines are cut or wrapped to its width. What goes into a pipe or a file is one record a
line: fields with tabs between them, nothing padded, cut or wrapped.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)
WIDEST = 100  # columns of running text

# states in the words of README.md, where they are not their own
_STATES = {
    "unverified": "applied, unverified",
    "pending": "waiting",
    "not_needed": "not needed",
    "fingerprint_mismatch": "other code",
    "disabled": "off",
    "overwritten": "replaced",
}


def state_words(state: str) -> str:
    """A ``State``'s value as screens show it."""
    return _STATES.get(state, state)


def show_error(message: object) -> None:
    """One line on stderr."""
    ERR.print(Text(f"error: {message}"), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout, for machines."""
    print(json.dumps(value, indent=2))


def record(*fields: object) -> None:
    """One line for a pipe."""
    print("\t".join(" ".join(str(field).split()) for field in fields))


def one_line(*parts: str | tuple[str, str]) -> None:
    """Styled parts on one line of a terminal, cut at its edge."""
    OUT.print(Text.assemble(*parts), no_wrap=True, overflow="ellipsis")


def paragraph(text: str, indent: int = 0, label: str = "", style: str = "") -> None:
    """Running text on a terminal, each line behind ``indent`` columns, ``label`` in bold."""
    width = min(OUT.width, WIDEST) - indent
    whole = Text.assemble((label, style or "bold"), text)
    for line in whole.wrap(OUT, max(width, 20)):
        line.rstrip()
        OUT.print(Text(" " * indent) + line, soft_wrap=True)


def columns(*titles: str) -> Table:
    """An empty table without lines, whose cells wrap and lose nothing."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
