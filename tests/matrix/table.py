"""The README's table of faults and releases, written from ``compat_matrix.yaml``.

``python -m tests.matrix.table`` puts it into the README.
"""

from __future__ import annotations

from mlx_gemma4_patches import matrix

from .environments import ROOT

README = ROOT / "README.md"
BAR = "\\|"  # in a cell, as a character
START, END = "<!-- the matrix -->\n", "<!-- end of the matrix -->\n"


def table() -> str:
    """One Markdown row for each patch."""
    lines = [
        "| patch | without it | releases with the fault | fixed upstream |",
        "|---|---|---|---|",
    ]
    for row in sorted(matrix.load().rows.values(), key=lambda row: row.id):
        faulty = " or ".join(
            ", ".join(f"{name} {specifier}".rstrip() for name, specifier in part.items())
            for part in row.faulty
        )
        title = f"{row.title} (opt-in)" if row.opt_in else row.title
        cells = (f"`{row.id}`", title, faulty, row.fixed_in or "not yet")
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """``text``, the README, with the table as it is now."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
