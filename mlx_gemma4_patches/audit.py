"""Which models of an installed host read a cache in ways that a batch cache does not forgive.

Two habits are looked for in the source, without importing it:

- ``offset``: ``offset = cache.offset`` before ``cache.update_and_fetch(...)``, used after it. A
  batch cache that counts with ``+=`` has changed that very array by then: queries are rotated by a
  later position than keys. ``mx.array(cache.offset)`` is a copy and safe. What a function hands on
  to others is not followed.
- ``state``: ``keys, values = cache.state``. The state of a batch cache has four values.

Whether they do harm is measured on the batch caches that the host's models are given, as they are
in this process: with ``mlx_lm.cache_offset`` or ``mlx_vlm.cache_offset`` on, an offset that was
read stays what it was.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import HOSTS, registry

_FOLDERS = {"models", "drafters", "patches"}  # where the hosts keep code of models
_UPDATES = ("update_and_fetch", "update")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


class NotInstalled(Exception):
    """There is no such host on this installation."""


@dataclass(frozen=True)
class Finding:
    """One place in one file."""

    kind: str  # "offset" or "state"
    function: str
    line: int  # where the offset is read, or the state unpacked
    used: int | None = None  # where the offset is used after the update
    file: str = ""  # relative to the package
    model: str = ""
    harmful: bool | None = None  # None: could not be measured
    why: str = ""


def audit(package: str) -> dict[str, Any]:
    """Scan the models of a host and measure its caches.

    Args:
        package: ``mlx_lm``, ``mlx_vlm`` or ``vllm_mlx``; hyphens will do.

    Returns:
        ``package``, ``version``, ``files`` (how many were read), ``unread`` (``file`` and
        ``reason`` of each that could not be), ``findings``.

    Raises:
        NotInstalled: no host is called so, or it is not installed.
    """
    package = package.replace("-", "_")
    spec = importlib.util.find_spec(package) if package in HOSTS else None
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled(f"{package} is not installed, or no host")
    root = Path(next(iter(spec.submodule_search_locations)))
    findings, unread, files = [], [], 0
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if _FOLDERS.isdisjoint(name.parts):
            continue
        try:
            found = scan(file.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            unread.append({"file": str(name), "reason": f"{type(error).__name__}: {error}"})
            continue
        files += 1
        findings += [
            Finding(**{**asdict(f), "file": str(name), "model": _model(name)}) for f in found
        ]
    harm = {kind: _harm(package, kind) for kind in {finding.kind for finding in findings}}
    return {
        "package": package,
        "version": str(registry.installed_versions().get(package.replace("_", "-"))),
        "files": files,
        "unread": unread,
        "findings": [{**asdict(f), **harm[f.kind]._asdict()} for f in findings],
    }


def scan(source: str) -> list[Finding]:
    """The findings in one file's source, in the order of their lines.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it cannot be parsed.
    """
    found: set[Finding] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _FUNCTIONS):
            _Function(getattr(node, "name", "lambda"), found).run(node)
    return sorted(found, key=lambda finding: (finding.line, finding.used or 0))


class _Capture(NamedTuple):
    line: int
    updated: bool  # whether a cache has been updated since


class _Function:
    """One pass through a function in the order of its evaluation; branches do not mix.

    ``captures`` holds the names that are bound to a cache's own offset at this point.
    """

    def __init__(self, name: str, found: set[Finding]):
        self.name = name
        self.found = found
        self.captures: dict[str, _Capture] = {}
        self.in_reach = True  # False where control does not come

    def run(self, function: Any) -> None:
        body = function.body
        for node in body if isinstance(body, list) else [body]:
            self.visit(node)

    def visit(self, node: ast.AST) -> None:
        if not self.in_reach or isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            return  # out of reach, or looked at on its own
        if isinstance(node, ast.If):
            self._branch(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            self._assign(node)
        elif isinstance(node, ast.Name):
            self._name(node)
        else:
            for child in ast.iter_child_nodes(node):
                self.visit(child)
            if isinstance(node, ast.Call) and _attribute(node.func) in _UPDATES:
                self.captures = {
                    name: capture._replace(updated=True) for name, capture in self.captures.items()
                }
            elif isinstance(node, _ENDS):
                self.in_reach = False

    def _branch(self, node: ast.If) -> None:
        self.visit(node.test)
        if not self.in_reach:
            return
        before, after = self.captures, []
        number = _tested_for_array(node.test)  # in the other branch
        for branch in (node.body, node.orelse):
            self.captures, self.in_reach = dict(before), True
            if branch is node.orelse and number is not None:
                self.captures.pop(number, None)
            for child in branch:
                self.visit(child)
            if self.in_reach:
                after.append(self.captures)
        self.captures, self.in_reach = {}, bool(after)
        for name, capture in itertools.chain.from_iterable(c.items() for c in after):
            if name not in self.captures or capture.updated:
                self.captures[name] = capture

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is not None:
            self.visit(node.value)
        for target in targets:
            if _is_two_values(target) and _is_state(node.value):
                self.found.add(Finding("state", self.name, node.lineno))
            if isinstance(target, ast.Name) and _is_offset(node.value):
                self.captures[target.id] = _Capture(node.lineno, False)
            else:
                self.visit(target)

    def _name(self, node: ast.Name) -> None:
        capture = self.captures.get(node.id)
        if isinstance(node.ctx, ast.Store):
            self.captures.pop(node.id, None)
        elif capture and capture.updated:
            self.found.add(Finding("offset", self.name, capture.line, node.lineno))


def _attribute(node: ast.AST | None) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else None


def _tested_for_array(node: ast.AST) -> str | None:
    """The name in ``isinstance(name, mx.array)``."""
    if not isinstance(node, ast.Call) or getattr(node.func, "id", None) != "isinstance":
        return None
    name, *kinds = node.args
    return getattr(name, "id", None) if kinds and _attribute(kinds[0]) == "array" else None


def _is_offset(node: ast.AST | None) -> bool:
    """Whether ``node`` may be a cache's own offset, not a copy."""
    if isinstance(node, ast.IfExp):
        return _is_offset(node.body) or _is_offset(node.orelse)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        name = node.args[1] if len(node.args) > 1 else None
        return isinstance(name, ast.Constant) and name.value == "offset"
    return _attribute(node) == "offset"


def _is_two_values(node: ast.AST) -> bool:
    return isinstance(node, (ast.Tuple, ast.List)) and len(node.elts) == 2


def _is_state(node: ast.AST | None) -> bool:
    """Whether ``node`` is the state of a cache that was handed in, not of an own one."""
    if _attribute(node) != "state":
        return False
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", None) not in ("self", "super")


def _model(file: Path) -> str:
    """The model a file belongs to: what follows ``models`` or the like in its path."""
    parts = file.with_suffix("").parts
    return parts[next(i for i, part in enumerate(parts) if part in _FOLDERS) + 1]


class _Harm(NamedTuple):
    harmful: bool | None
    why: str


def _harm(package: str, kind: str) -> _Harm:
    """What the batch caches of ``package`` do to a habit, measured on one of two rows."""
    host = package if package != "vllm_mlx" else "mlx_lm"  # it has no models and no batch caches
    try:
        import mlx.core as mx

        cache = importlib.import_module(f"{host}.models.cache").BatchKVCache([1, 0])
        offset, before = cache.offset, cache.offset.tolist()
        cache.update_and_fetch(mx.zeros((2, 1, 3, 4)), mx.zeros((2, 1, 3, 4)))
        moved, values = offset.tolist() != before, len(cache.state)
    except Exception as error:  # an unfit installation is the doctor's to explain
        return _Harm(None, f"the batch caches of {host} cannot be tried: {error}")
    if kind == "state":
        return _Harm(values != 2, f"the state of a batch cache of {host} has {values} values")
    if moved:
        return _Harm(True, f"batch caches of {host} change an offset that was read")
    return _Harm(False, f"batch caches of {host} leave an offset that was read as it was")
