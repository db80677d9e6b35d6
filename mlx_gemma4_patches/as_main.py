"""``python -m NAME`` of a module that patches touch.

Python runs such a file as ``__main__``: a second copy, whose functions no patch reaches. So what
stands under ``if __name__ == "__main__":`` runs in the module that can be imported, and is patched.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from types import CodeType
from typing import Any

from .settings import log


def get_code(name: str, loader: Any, original: Callable[[str], Any]) -> Any:
    """What ``python -m NAME`` runs; the module as it is where there is no source."""
    try:
        return code(name, loader)
    except Exception as error:
        log.debug("%s runs as __main__ without patches of its own: %r", name, error)
        return original(name)


def code(name: str, loader: Any) -> CodeType:
    """The code of a module with ``run(name)`` for what it does as a program.

    Raises:
        Exception: there is no source, or whatever the loader raises.
    """
    tree = ast.parse(loader.get_source(name))
    for guard in filter(_is_guard, tree.body):
        (call,) = ast.parse(f"__import__({__name__!r}, fromlist=['run']).run({name!r})").body
        guard.body = [call]
    return compile(tree, loader.get_filename(name), "exec")


def run(name: str) -> None:
    """What the module ``name`` does as a program, done in the importable module."""
    module: Any = importlib.import_module(name)
    tree = ast.parse(module.__loader__.get_source(name))
    body = [statement for guard in filter(_is_guard, tree.body) for statement in guard.body]
    exec(compile(ast.Module(body, []), module.__file__, "exec"), vars(module))


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
