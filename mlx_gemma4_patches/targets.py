"""Targets: what ``module:function``, ``module:Class`` and ``module:Class.attribute`` stand for.

With brackets behind it, a patch depends on how a function is called, and its body may be any:
``module:function(first, second, *, named)`` begins with these parameters and takes this one by its
name. The place is the same.
Values are read from the owner's own ``__dict__``: ``getattr`` would bind methods and hide whether
an attribute is inherited.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

_MARK = "__mlx_gemma4_patches_wrapper__"  # on a wrapper of ours: itself, and what it was made for


def module_of(target: str) -> str:
    """The module part of ``module:path``."""
    return target.partition(":")[0]


def place_of(target: str) -> str:
    """The target without brackets: where it is."""
    return target.partition("(")[0]


def locate(target: str, may_import: bool = True) -> tuple[Any, str]:
    """Owner and attribute name of ``module:path``.

    Raises:
        ImportError: the module cannot be imported, or has not been and may not be.
        AttributeError: the owner does not exist.
    """
    module, _, path = place_of(target).partition(":")
    *parents, name = path.split(".")
    # `import a.b as x` may bind a function named b
    owner = importlib.import_module(module) if may_import else sys.modules.get(module)
    if owner is None:
        raise ImportError(f"{module} is not imported")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def current(target: str, may_import: bool = True) -> Any:
    """The raw value at ``module:path``: descriptors stay descriptors, inheritance is followed.

    Raises:
        ImportError: see ``locate``.
        AttributeError: there is no such attribute.
    """
    owner, name = locate(target, may_import)
    for base in getattr(owner, "__mro__", (owner,)):
        if name in vars(base):
            return vars(base)[name]
    raise AttributeError(f"{target} does not exist")


def mark_as_wrapper(wrapper: Any, original: Any) -> None:
    """Remember what a wrapper of ours was made for."""
    # itself too: functools.wraps copies marks to wrappers that others put around ours
    setattr(wrapper, _MARK, (wrapper, original))


def wrapped_by_us(value: Any) -> Any:
    """What ``value``, a wrapper of ours, was made for; None for anything else."""
    wrapper, original = vars_of(value).get(_MARK, (None, None))
    return original if wrapper is value else None


def under_our_wrappers(function: Any) -> Any:
    """The host's function under wrappers of ours, however many there are."""
    while (original := wrapped_by_us(function)) is not None:
        function = original
    return function


def home_of(value: Any) -> str:
    """The name of the module that defines a function, whatever ``functools.wraps`` says of it."""
    if isinstance(value, FunctionType):
        return str(value.__globals__.get("__name__", ""))
    return value.__module__ if isinstance(value, type) else type(value).__module__


def vars_of(value: Any) -> dict[str, Any]:
    """``vars(value)``, empty for what has none; never asks ``__getattr__``, unlike getattr."""
    try:
        return vars(value)
    except TypeError:
        return {}


def functions(value: Any) -> list[Any]:
    """The functions in a class attribute: a property has several, most attributes are their own."""
    if isinstance(value, property):
        return [part for part in (value.fget, value.fset) if part is not None]
    if isinstance(value, (classmethod, staticmethod)):
        return [value.__func__]
    return [value]


def calls(value: Any, ours: Any) -> bool:
    """Whether ``value`` is ``ours`` or a wrapper that keeps it.

    A wrapper keeps what it wraps as ``__wrapped__``, in its closure, in a ``functools.partial``,
    or, if it is one of ours, under our mark.
    """
    waiting, seen = [value], set[int]()
    while waiting and len(seen) < 100:  # a wrapper of wrappers is no deeper
        one = waiting.pop()
        if one is ours:
            return True
        if id(one) not in seen:
            seen.add(id(one))
            waiting += _kept_by(one)
    return False


def _kept_by(value: Any) -> Iterator[Any]:
    if isinstance(value, (property, classmethod, staticmethod)):
        yield from functions(value)
    elif isinstance(value, functools.partial):
        yield value.func
    yield vars_of(value).get("__wrapped__")
    yield wrapped_by_us(value)
    if isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                yield cell.cell_contents
