"""The README says what the matrix and the command line say."""

import html
import re

from markdown_it import MarkdownIt

from mlx_gemma4_patches import matrix, registry
from tests.matrix import table
from tests.rehearsal import __main__ as rehearsal
from tests.rehearsal import past


def test_the_table_is_that_of_the_matrix():
    text = table.README.read_text(encoding="utf-8")
    assert table.START in text
    assert table.written(text) == text, "stale: python -m tests.matrix.table writes it"


def test_the_table_of_the_past_is_that_of_the_matrix():
    text, known = table.README.read_text(encoding="utf-8"), matrix.load()
    outcomes = list(past.rehearse(known))
    assert outcomes
    written = rehearsal.written(text, outcomes, known)
    assert written == text, "stale: python -m tests.rehearsal --write"


def test_of_the_past_nothing_is_wrong_and_nearly_all_is_kept():
    fates = [outcome.fate for outcome in past.rehearse(matrix.load())]
    kept = sum(fate in rehearsal.KEPT for fate in fates)
    assert "wrong" not in fates
    assert kept >= rehearsal.AIM * (kept + fates.count("lost"))


def test_links_work_wherever_the_readme_is_shown():
    text = table.README.read_text(encoding="utf-8")
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in _headings(text)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link.startswith("https://") or link.removeprefix("#") in headings, link


def _headings(text):
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def test_a_reader_sees_four_cells_in_every_row_of_the_table():
    text = table.README.read_text(encoding="utf-8")
    written = text.partition(table.START)[2].partition(table.END)[0]
    shown = MarkdownIt("commonmark").enable("table").render(written)
    rows = [re.findall("<td>(.*?)</td>", row) for row in shown.split("<tr>")[2:]]
    titles = {html.unescape(patch_id): html.unescape(title) for patch_id, title, _, _ in rows}
    assert titles == {
        f"<code>{row.id}</code>": row.title + " (opt-in)" * row.opt_in
        for row in matrix.load().rows.values()
    }


def test_every_row_is_a_registered_patch_and_every_patch_has_a_row():
    registered = {
        entry_point.name
        for entry_point in registry.registered()
        if entry_point.value.startswith("mlx_gemma4_patches.patches.")
    }
    rows = set(matrix.load().rows)
    assert rows - registered == set(), "no entry point: python -m tests.new ID lays one; then pip"
    assert registered - rows == set(), "no row: python -m tests.new ID lays one"
