"""PATCHES.md: the table of faults and releases, and the story of each patch.

``python -m tests.matrix.table`` writes it, from ``compat_matrix.yaml`` and the patches' docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_gemma4_patches import matrix, registry
from mlx_gemma4_patches.commands.explain import story

from .environments import ROOT

README = ROOT / "README.md"
PATCHES = ROOT / "PATCHES.md"
BAR = "\\|"  # in a cell, as a character
_CODE = re.compile(r"(`[^`]*`)")
_MARKUP = re.compile(r"([<*_])")  # what Markdown would take for its own
_HEAD = """\
<!-- python -m tests.matrix.table writes this file -->

# What is patched

On every release of the hosts each fault was reproduced without its patch and gone with it, or
absent and the patch not applied; [compat_matrix.yaml](compat_matrix.yaml) has the evidence.

"""


def page() -> str:
    """All of PATCHES.md."""
    known = matrix.load()
    rows = sorted(known.rows.values(), key=lambda row: row.id)
    modules = {entry_point.name: entry_point.module for entry_point in registry.registered()}
    parts = [_HEAD, *_table(rows)]
    for row in rows:
        measured = known.evidence[row.id].measured if row.id in known.evidence else {}
        parts += _entry(row, story(modules.get(row.id, "")), measured)
    return "".join(parts)


def _table(rows: list[matrix.Row]) -> Iterator[str]:
    yield "| patch | without it | releases with the fault | fixed upstream |\n|---|---|---|---|\n"
    for row in rows:
        title = f"{row.title} (opt-in)" if row.opt_in else row.title
        link = f"[`{row.id}`](#{row.id.replace('.', '')})"
        cells = (link, title, faulty(row), row.fixed_in or "not yet")
        yield f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |\n"


def _entry(row: matrix.Row, told: str, measured: dict[str, str]) -> Iterator[str]:
    yield f"\n## {row.id}\n\n{_markdown(told)}\n\n"
    yield f"- Releases with the fault: {faulty(row)}; fixed upstream: {row.fixed_in or 'not yet'}\n"
    for mode, text in measured.items():
        yield f"- Measured, {mode}: {_markdown(text)}\n"
    for link in row.upstream:
        yield f"- {link}\n"


def faulty(row: matrix.Row) -> str:
    """The releases that have a fault, in words."""
    return " or ".join(
        ", ".join(f"{name} {specifier}".rstrip() for name, specifier in part.items())
        for part in row.faulty
    )


def _markdown(text: str) -> str:
    """A docstring's text, whose code is between two backticks."""
    parts = _CODE.split(text.replace("``", "`"))
    return "".join(part if part.startswith("`") else _MARKUP.sub(r"\\\1", part) for part in parts)


if __name__ == "__main__":
    PATCHES.write_text(page(), encoding="utf-8")
