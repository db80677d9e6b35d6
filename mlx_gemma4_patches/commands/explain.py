"""``explain``: what one patch is for, with its evidence."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
from collections.abc import Iterator
from typing import Any

from .. import matrix, registry
from .screen import OUT, paragraph, print_json, record, show_error


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "explain",
        help="what one patch is for, with its evidence",
        description="What users see without the patch, why, who mended it where, and on which "
        "releases it was measured. No host is needed.",
    )
    parser.add_argument("id", help="a patch id, such as mlx_lm.cache_offset")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    entry_points = {entry_point.name: entry_point for entry_point in registry.registered()}
    if options.id not in entry_points:
        parts = {name: name.partition(".")[2] for name in entry_points}  # without the host
        near = difflib.get_close_matches(options.id, parts.values(), 3, cutoff=0.7)
        close = [name for name, part in parts.items() if part == options.id]
        close = close or difflib.get_close_matches(options.id, entry_points, 3, cutoff=0.7)
        close = close or [name for name, part in parts.items() if part in near[:1]]
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        show_error(f"no patch is called {options.id!r}; {hint}`list` shows all")
        return 2
    entry_point = entry_points[options.id]
    known = matrix.load()
    row = known.rows.get(options.id)
    if row is None:  # another distribution's, which brings its row
        try:
            row = matrix.parse_row(options.id, registry.load(entry_point).row)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            show_error(f"{options.id} could not be loaded: {reason}")
            return 1
    evidence = known.evidence.get(options.id, matrix.Evidence({}, {}))
    described = {
        "id": row.id,
        "title": row.title,
        "kind": row.kind,
        "story": story(entry_point.module),
        "faulty": [{name: str(s) for name, s in part.items()} for part in row.faulty],
        "fixed_in": row.fixed_in,
        "upstream": list(row.upstream),
        "targets": sorted({target for code in row.code for target in code.targets}),
        "measured": dict(evidence.measured),
        "evidence": {outcome: list(names) for outcome, names in evidence.outcomes.items()},
    }
    if options.json:
        print_json(described)
    elif OUT.is_terminal:
        _print(described)
    else:
        record(described["id"], described["title"])
        for part in _paragraphs(described["story"]):
            record("story", part)
        for fields in _facts(described):
            record(*fields)
    return 0


def story(module: str) -> str:
    """The docstring of a patch's module, read without the import, which may need its host."""
    try:
        spec = importlib.util.find_spec(module)
        return ast.get_docstring(ast.parse(spec.loader.get_source(module))) or ""
    except Exception as error:  # no such module, no source: the rest can be told all the same
        return f"(the docstring of {module} cannot be read: {type(error).__name__})"


def _print(described: dict[str, Any]) -> None:
    paragraph("", label=f"{described['id']}: {described['title']}")
    for part in _paragraphs(described["story"]):
        OUT.print()
        paragraph(part)
    OUT.print()
    for label, text in _facts(described):
        paragraph(text, label=f"{label}: ")


def _facts(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    faulty = " or ".join(
        ", ".join(f"{name} {specifier}".rstrip() for name, specifier in part.items())
        for part in described["faulty"]
    )
    yield "releases with the fault", faulty
    yield "fixed upstream in", described["fixed_in"] or "no release yet"
    for link in described["upstream"]:
        yield "upstream", link
    for target in described["targets"]:
        yield "target", target
    yield from described["measured"].items()
    for outcome, names in described["evidence"].items():
        yield f"{outcome.replace('_', ' ')} on", ", ".join(names)


def _paragraphs(story: str) -> Iterator[str]:
    """The parts of a docstring, each in one line; lines of lists and code stay apart."""
    for block in story.replace("``", "`").split("\n\n"):
        lines = block.splitlines()
        if any(line.startswith((" ", "- ", "* ")) for line in lines):
            yield from lines
        elif lines:
            yield " ".join(lines)
