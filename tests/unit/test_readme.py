"""README and PATCHES.md say what the matrix, the patches and the command line say."""

import html
import re

from markdown_it import MarkdownIt

from mlx_gemma4_patches import matrix, registry
from mlx_gemma4_patches.commands.explain import story
from tests.matrix import table
from tests.rehearsal import __main__ as rehearsal
from tests.rehearsal import past


def test_the_page_of_patches_is_that_of_the_matrix_and_the_docstrings():
    written = table.PATCHES.read_text(encoding="utf-8")
    assert written == table.page(), "stale: python -m tests.matrix.table writes it"


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


def test_every_link_leads_somewhere():
    text = table.README.read_text(encoding="utf-8")
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in _headings(text)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        known = link.removeprefix("#") in headings or (table.ROOT / link).is_file()
        assert link.startswith("https://") or known, link


def _headings(text):
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def test_a_reader_sees_four_cells_in_every_row_of_the_table():
    shown = shown_page()
    rows = [re.findall("<td>(.*?)</td>", row) for row in shown.split("<tr>")[2:]]
    seen = {plain(patch_id): plain(title) for patch_id, title, _, _ in rows}
    assert seen == {
        row.id: row.title + " (opt-in)" * row.opt_in for row in matrix.load().rows.values()
    }


def test_a_reader_loses_no_word_of_a_story():
    shown = plain(shown_page())
    for entry_point in registry.registered():
        if registry.is_ours(entry_point):
            words = story(entry_point.module).replace("`", "").split()
            assert " ".join(words) in " ".join(shown.split()), entry_point.name


def test_the_readme_leads_to_the_patches_within_two_screens():
    text = table.README.read_text(encoding="utf-8")
    before, link, _ = text.partition("(PATCHES.md)")
    assert link and len(before.splitlines()) <= 80


def shown_page():
    text = table.PATCHES.read_text(encoding="utf-8")
    return MarkdownIt("commonmark").enable("table").render(text)


def plain(shown):
    """HTML as a reader sees it."""
    return html.unescape(re.sub("<[^>]*>", "", shown))


def test_every_row_is_a_registered_patch_and_every_patch_has_a_row():
    registered = {
        entry_point.name for entry_point in registry.registered() if registry.is_ours(entry_point)
    }
    rows = set(matrix.load().rows)
    assert rows - registered == set(), "no entry point: python -m tests.new ID lays one; then pip"
    assert registered - rows == set(), "no row: python -m tests.new ID lays one"
