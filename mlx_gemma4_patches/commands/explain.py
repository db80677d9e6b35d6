"""``explain``: what one patch is for, with its evidence."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
from typing import Any

from rich.text import Text

from .. import matrix, registry
from .screen import OUT, print_json, show_error


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("explain", help="what one patch is for, with its evidence")
    parser.add_argument("id", help="a patch id, such as mlx_lm.cache_offset")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    entry_points = {entry_point.name: entry_point for entry_point in registry.registered()}
    if options.id not in entry_points:
        close = difflib.get_close_matches(options.id, entry_points, 3, cutoff=0.7)
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
        "story": _story(entry_point.module),
        "faulty": [{name: str(s) for name, s in part.items()} for part in row.faulty],
        "fixed_in": row.fixed_in,
        "upstream": list(row.upstream),
        "targets": sorted({target for code in row.code for target in code.targets}),
        "measured": dict(evidence.measured),
        "evidence": {outcome: list(names) for outcome, names in evidence.outcomes.items()},
    }
    if options.json:
        print_json(described)
    else:
        _print(described)
    return 0


def _story(module: str) -> str:
    """The docstring of a patch's module, read without the import, which may need its host."""
    try:
        spec = importlib.util.find_spec(module)
        return ast.get_docstring(ast.parse(spec.loader.get_source(module))) or ""
    except Exception as error:  # no such module, no source: the rest can be told all the same
        return f"(the docstring of {module} cannot be read: {type(error).__name__})"


def _print(described: dict[str, Any]) -> None:
    OUT.print(Text(f"{described['id']}: {described['title']}", "bold"))
    OUT.print(Text(f"\n{described['story']}\n"))
    faulty = " or ".join(
        ", ".join(f"{name} {specifier}" for name, specifier in part.items())
        for part in described["faulty"]
    )
    OUT.print(Text(f"releases with the fault: {faulty}"))
    OUT.print(Text(f"fixed upstream in: {described['fixed_in'] or 'no release yet'}"))
    for link in described["upstream"]:
        OUT.print(Text(f"upstream: {link}"))
    for target in described["targets"]:
        OUT.print(Text(f"target: {target}"))
    for mode, text in described["measured"].items():
        OUT.print(Text(f"measured {mode}: {text}"))
    for outcome, names in described["evidence"].items():
        OUT.print(Text(f"{outcome.replace('_', ' ')} on: {', '.join(names)}"))
