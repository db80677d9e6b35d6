"""Changes to a host's modules and classes, recorded so that they can be undone.

Values are read from and written to the owner's own ``__dict__``: ``getattr`` would bind methods
and hide whether an attribute is inherited.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import HOSTS
from .patch import module_of

_ABSENT = object()
_UNDER = "__mlx_gemma4_patches_under__"  # what one of our wrappers was made for


class _Change(NamedTuple):
    target: str | None  # None: a name bound elsewhere by `from ... import`
    owner: Any
    name: str
    before: Any
    after: Any


def locate(target: str) -> tuple[Any, str]:
    """Owner and attribute name of ``module:path``.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: the owner or the attribute does not exist.
    """
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    owner = importlib.import_module(module)  # `import a.b as x` may bind a function named b
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def current(target: str) -> Any:
    """The raw value at ``module:path``: descriptors stay descriptors, inheritance is followed."""
    owner, name = locate(target)
    for base in getattr(owner, "__mro__", (owner,)):
        if name in vars(base):
            return vars(base)[name]
    raise AttributeError(f"{target} does not exist")


def layers(function: Any) -> Iterator[Any]:
    """``function`` and, under our own wrappers, what each was made for; several may stack."""
    while function is not None:
        yield function
        function = getattr(function, _UNDER, None)


def functions(value: Any) -> list[Any]:
    """The functions in a class attribute: a property has several, most attributes are their own."""
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, (classmethod, staticmethod)):
        return [value.__func__]
    return [value]


def _stands(after: Any, value: Any) -> bool:
    """Whether ``value`` is ``after``, or wrappers of ours around it."""
    if type(value) is not type(after):
        return False
    return all(
        one is None or any(layer is one for layer in layers(other))
        for one, other in zip(functions(after), functions(value), strict=True)
    )


class Surgery:
    """The changes of one patch. ``undo`` takes them back together."""

    def __init__(self, patch_id: str, targets: tuple[str, ...]):
        self.patch_id = patch_id
        self.targets = targets
        self._changes: list[_Change] = []

    def resolve(self, target: str) -> Any:
        """The object at ``target`` as attribute access gives it."""
        owner, name = locate(target)
        return getattr(owner, name)

    def wrap(self, target: str, make: Callable[[Callable], Callable]) -> None:
        """Replace a function or method by ``make(original)``.

        Class and static methods are unwrapped for ``make`` and wrapped again. A module's function
        that other modules of the hosts hold by ``from ... import`` is replaced there too.
        """
        raw = current(target)
        if isinstance(raw, (classmethod, staticmethod)):
            self.replace(target, type(raw)(self._made(make, raw.__func__)))
        else:
            self.replace(target, self._made(make, raw))

    def wrap_property(
        self,
        target: str,
        fget: Callable[[Callable], Callable] | None = None,
        fset: Callable[[Callable], Callable] | None = None,
    ) -> None:
        """Replace the accessors of a property by ``fget(original)`` and ``fset(original)``."""
        raw = current(target)
        value = property(
            self._made(fget, raw.fget) if fget else raw.fget,
            self._made(fset, raw.fset) if fset else raw.fset,
            raw.fdel,
            raw.__doc__,
        )
        self.replace(target, value)

    def replace(self, target: str, value: Any) -> None:
        """Put ``value`` where ``target`` is.

        Raises:
            AttributeError: there is nothing at ``target``.
        """
        before = current(target)
        owner, name = locate(target)
        self._set(target, owner, name, value)
        if owner is sys.modules.get(module_of(target)) and callable(before):
            self._rebind(before, value)

    def add(self, target: str, value: Any) -> None:
        """Give the owner a new attribute.

        Raises:
            AttributeError: the owner has one of that name.
        """
        owner, name = locate(target)
        if name in vars(owner):
            raise AttributeError(f"{target} exists already")
        self._set(target, owner, name, value)

    def is_intact(self) -> bool:
        """Whether every change still stands where its target is found now.

        False when somebody replaced ours by something else, and after a reload of the module.
        """
        for change in self._changes:
            if change.target is None:
                continue
            owner, name = locate(change.target)
            if owner is not change.owner or not _stands(change.after, vars(owner).get(name)):
                return False
        return True

    def touched(self) -> list[str]:
        """The targets changed, in order."""
        return [change.target for change in self._changes if change.target is not None]

    def places(self) -> list[tuple[Any, str]]:
        """Every owner and name changed, the rebound names among them."""
        return [(change.owner, change.name) for change in self._changes]

    def undo(self) -> list[str]:
        """Take the changes back, newest first; returns the places somebody else changed since."""
        left = []
        while self._changes:
            change = self._changes.pop()
            if vars(change.owner).get(change.name, _ABSENT) is not change.after:
                left.append(change.target or f"{change.owner.__name__}:{change.name}")
            elif change.before is _ABSENT:
                delattr(change.owner, change.name)
            else:
                setattr(change.owner, change.name, change.before)
        return left

    def _made(self, make: Callable[[Callable], Callable], original: Callable) -> Callable:
        made = functools.update_wrapper(make(original), original)
        setattr(made, _UNDER, original)
        return made

    def _set(self, target: str | None, owner: Any, name: str, value: Any) -> None:
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._changes.append(_Change(target, owner, name, before, value))

    def _rebind(self, before: Any, after: Any) -> None:
        for module_name, module in list(sys.modules.items()):
            if module_name.partition(".")[0] not in HOSTS and module_name != "__main__":
                continue
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is before:
                    self._set(None, module, name, after)
