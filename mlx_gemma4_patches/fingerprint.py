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

from .surgery import current, functions, layers, locate


class NoSource(Exception):
    """The target exists but its source text cannot be had (pyc-only installs, C code)."""


def fingerprint(target: str) -> str:
    """16 hexadecimal digits of the sha256 of the source at ``module:path``.

    Raises:
        ImportError, AttributeError: the target does not exist, or its class comes from another
            package and changes with that.
        NoSource: there is no source text for it.
    """
    owner, _ = locate(target)
    home = getattr(owner, "__module__", None) or owner.__name__
    if home.partition(".")[0] != target.partition(".")[0]:
        raise AttributeError(f"{target} is the code of {home}")
    parts = [part for part in functions(current(target)) if part is not None]
    text = "\n".join(_source(list(layers(part))[-1], target) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source(value: Any, target: str) -> str:
    if isinstance(value, (dict, list, tuple, set, frozenset, str, int, float)):
        return repr(value)  # a table of the host, such as a registry of model types
    try:
        return textwrap.dedent(inspect.getsource(getattr(value, "__code__", value)))
    except (OSError, TypeError) as error:
        raise NoSource(f"no source text for {target}") from error
