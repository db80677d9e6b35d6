"""Fingerprints: the proof that a target's code is the code a patch was written for.

The hash is taken over the dedented source text of the code object. ``ast.dump`` differs between
Python releases, and ``inspect.getsource(function)`` follows ``__wrapped__`` to code that does not
run.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from typing import Any

from .surgery import current


class NoSource(Exception):
    """The target exists but its source text cannot be had (pyc-only installs, C code)."""


def fingerprint(target: str) -> str:
    """16 hexadecimal digits of the sha256 of the source at ``module:path``.

    Raises:
        ImportError, AttributeError: the target does not exist.
        NoSource: there is no source text for it.
    """
    text = "\n".join(_sources(current(target), target))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sources(value: Any, target: str) -> list[str]:
    if isinstance(value, property):
        parts = [value.fget, value.fset]
    elif isinstance(value, (classmethod, staticmethod)):
        parts = [value.__func__]
    else:
        parts = [value]
    return [_source(part, target) for part in parts if part is not None]


def _source(value: Any, target: str) -> str:
    if isinstance(value, (dict, list, tuple, set, frozenset, str, int, float)):
        return repr(value)  # a table of the host, such as a registry of model types
    try:
        return textwrap.dedent(inspect.getsource(getattr(value, "__code__", value)))
    except (OSError, TypeError) as error:
        raise NoSource(f"no source text for {target}") from error
