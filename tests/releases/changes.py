"""What changed for a patch between two releases of its host, for a maintainer to read."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

from mlx_gemma4_patches.targets import module_of, place_of


def source(folder: Path, target: str) -> list[str] | None:
    """The lines at ``target`` in an unpacked release, decorators too; None if there is no such."""
    place = folder.joinpath(*module_of(target).split("."))
    file = next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)
    if file is None:
        return None
    text = file.read_text(encoding="utf-8")
    node: ast.AST | None = ast.parse(text)
    for name in place_of(target).partition(":")[2].split("."):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        named = [n for n in ast.walk(node) if isinstance(n, kinds) and n.name == name]
        if not named:
            return None
        node = named[-1]  # a later definition takes the place of an earlier one
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return text.splitlines()[first - 1 : node.end_lineno]


def difference(before: Path, after: Path, target: str) -> str:
    """A unified diff of a target between two unpacked releases; empty where it is the same."""
    old, new = source(before, target), source(after, target)
    names = (f"{folder.name} {target}" for folder in (before, after))
    lines = difflib.unified_diff(old or [], new or [], *names, lineterm="")
    return "\n".join(lines)


def between(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The targets whose fingerprints differ, by those of two releases."""
    every = dict.fromkeys([*before, *after])
    return [target for target in every if before.get(target) != after.get(target)]
