"""What all commands print with: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

OUT = Console()
ERR = Console(stderr=True)

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


def columns(*titles: str) -> Table:
    """An empty table without lines, whose cells wrap and lose nothing."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
