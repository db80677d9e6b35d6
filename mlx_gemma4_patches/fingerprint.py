"""Fingerprints: the proof that a target's code is the code a patch was written for.

The hash is taken over the dedented source text of the code object. ``ast.dump`` differs between
Python releases, and ``inspect.getsource(function)`` follows ``__wrapped__`` to code that does not
run. Of a target with brackets it is taken over the parameters it names, which needs no source.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from .targets import (
    current,
    functions,
    home_of,
    locate,
    module_of,
    place_of,
    under_our_wrappers,
)


class NoSource(Exception):
    """The target exists but its source text cannot be had (pyc-only installs, C code)."""


def fingerprint(target: str, may_import: bool = True) -> str:
    """16 hexadecimal digits of the sha256 of the source at ``module:path``, or of its signature.

    Raises:
        ImportError, AttributeError: the target does not exist, its class comes from another package
            and changes with that, or somebody put an object there that is no code, such as a mock.
        NoSource: there is no source text for it.
    """
    owner, _ = locate(target, may_import)
    home = getattr(owner, "__module__", None) or owner.__name__
    if _package(home) != _package(target):
        raise AttributeError(f"{target} is the code of {home}")
    value = current(target, may_import)
    parts = [under_our_wrappers(part) for part in functions(value)]
    if place_of(target) == target:
        text = "\n".join(_source(part, target) for part in parts)
    else:
        kind = "" if isinstance(value, FunctionType) else f"{type(value).__name__} "
        text = kind + "\n".join(_signature(part, target) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def what_stands_at(target: str) -> str:
    """``target`` and, in brackets, what is there instead of the host's own code, if anything is."""
    try:
        value = current(target, may_import=False)
    except (ImportError, AttributeError):
        return f"{place_of(target)} (missing)"
    homes = {home_of(under_our_wrappers(part)) for part in functions(value)}
    others = sorted(home for home in homes if _package(home) != _package(target))
    target = place_of(target)
    return f"{target} (replaced or wrapped by {', '.join(others)})" if others else target


def _package(name: str) -> str:
    return module_of(name).partition(".")[0]


def _source(value: Any, target: str) -> str:
    if not isinstance(value, (FunctionType, type)):
        if inspect.isroutine(value):  # C code
            raise NoSource(f"there is no source text for {target}")
        raise AttributeError(f"{target} is no code")
    try:
        text = source(value) if isinstance(value, FunctionType) else inspect.getsource(value)
        return textwrap.dedent(text)
    except (OSError, TypeError) as error:
        raise NoSource(f"there is no source text for {target}") from error


def _signature(function: Any, target: str) -> str:
    """Such as ``async def name(first, *, named)``: what there is of what ``target`` asks for."""
    if not isinstance(function, FunctionType) or _package(home_of(function)) != _package(target):
        raise AttributeError(f"{target} is no function of its host")
    first, _, named = target.partition("(")[2].rstrip(")").partition("*")
    code = function.__code__
    plain = code.co_varnames[: code.co_argcount]
    by_name = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    takes_any = bool(code.co_flags & inspect.CO_VARKEYWORDS)
    parts = [*plain[: len(_names(first))], "*"]
    parts += [name for name in _names(named) if takes_any or name in by_name]
    kinds = {
        "async ": inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR,
        "generator ": inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR,
    }
    kind = "".join(word for word, flags in kinds.items() if code.co_flags & flags)
    return f"{kind}def {code.co_name}({', '.join(parts)})"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def source(function: FunctionType) -> str:
    """What ``inspect.getsource(function.__code__)`` gives, without a tokenizer's 1 ms a piece.

    Raises:
        OSError: the file cannot be read, or is not the one the code was compiled from.
    """
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    first, last = code.co_firstlineno - 1, max(_line_numbers(code)) - 1
    while last < len(lines) and lines[last].lstrip().startswith("@"):
        last += 1  # a body without instructions, a docstring alone
    if last >= len(lines):
        raise OSError(f"{code.co_filename} ends before line {last + 1}")
    margin = _indent(lines[first])
    end = last + 1
    # behind the last instruction: what closes its statement, and comments
    for number in range(last + 1, len(lines)):
        if lines[number].strip():
            if _indent(lines[number]) <= margin:
                break
            end = number + 1
    return "".join(lines[first:end])


def _line_numbers(code: CodeType) -> Iterator[int]:
    yield code.co_firstlineno
    for _, _, line in code.co_lines():
        if line is not None:
            yield line
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _line_numbers(inner)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
