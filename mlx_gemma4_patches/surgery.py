"""Changes to a host's modules and classes, recorded so that they can be undone."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from . import HOSTS
from .targets import (
    calls,
    current,
    functions,
    home_of,
    locate,
    mark_as_wrapper,
    module_of,
    vars_of,
    wrapped_by_us,
)

_ABSENT = object()


class _Change(NamedTuple):
    target: str  # changed, or bound elsewhere by `from ... import`
    is_rebound: bool
    owner: Any  # a module, a class, or a dictionary that ``name`` is a key of
    name: str
    before: Any
    after: Any


def _stands(change: _Change) -> bool:
    try:
        owner, name = locate(change.target, may_import=False)
    except (ImportError, AttributeError):
        return False
    value = vars_of(owner).get(name, _ABSENT)
    if isinstance(change.owner, dict):
        return value is change.owner and value.get(change.name) is change.after
    return owner is change.owner and all(calls(value, ours) for ours in functions(change.after))


def _contents(owner: Any) -> Any:
    return owner if isinstance(owner, dict) else vars_of(owner)


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
            self.replace(target, type(raw)(self._wrapper(make, raw.__func__)))
        else:
            self.replace(target, self._wrapper(make, raw))

    def wrap_property(
        self,
        target: str,
        fget: Callable[[Callable], Callable] | None = None,
        fset: Callable[[Callable], Callable] | None = None,
    ) -> None:
        """Replace the accessors of a property by ``fget(original)`` and ``fset(original)``."""
        raw = current(target)
        value = property(
            self._wrapper(fget, raw.fget) if fget else raw.fget,
            self._wrapper(fset, raw.fset) if fset else raw.fset,
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
            self._rebind(target, before, value)

    def add(self, target: str, value: Any) -> None:
        """Give the owner a new attribute.

        Raises:
            AttributeError: the owner has one of that name.
        """
        owner, name = locate(target)
        if name in vars(owner):
            raise AttributeError(f"{target} exists already")
        self._set(target, owner, name, value)

    def add_entry(self, target: str, key: Any, value: Any) -> None:
        """Give a dictionary of the host an entry, unless it has one of that key."""
        table = current(target)
        if key not in table:
            table[key] = value
            self._changes.append(_Change(target, False, table, key, _ABSENT, value))

    def replaced(self) -> list[str]:
        """The targets where our change is no longer, in order.

        A change is gone when its target's module was imported anew, and when somebody put something
        there that does not call ours. A wrapper around ours keeps it. Nothing is imported.
        """
        return [
            change.target
            for change in self._changes
            if not change.is_rebound and not _stands(change)
        ]

    def was_reloaded(self) -> bool:
        """Whether a module was imported anew since, so that the host's own code stands there."""
        found = []
        for target in self.replaced():
            try:
                found += functions(current(target, may_import=False))
            except (ImportError, AttributeError):
                continue
        return any(home_of(value).partition(".")[0] in HOSTS for value in found)

    def forget_replaced(self) -> None:
        """Leave what was replaced as it is: objects from before a reload live on, patched."""
        gone = set(self.replaced())
        self._changes = [change for change in self._changes if change.target not in gone]

    def wrapped_by(self) -> list[str]:
        """The modules of other packages whose wrappers lie around our changes."""
        found = []
        for change in self._changes:
            value = _contents(change.owner).get(change.name)
            if not change.is_rebound and value is not change.after:
                tops = [part for part in functions(value) if wrapped_by_us(part) is None]
                found += [home_of(part) for part in tops]
        return list(dict.fromkeys(found))

    def changed_targets(self) -> list[str]:
        """The targets changed, in order."""
        return [change.target for change in self._changes if not change.is_rebound]

    def changed_names(self) -> list[tuple[Any, str]]:
        """Every owner and name changed, names bound by ``from ... import`` among them."""
        return [(change.owner, change.name) for change in self._changes]

    def changed_places(self) -> set[tuple[int, str]]:
        """Where the changes are, the same for all names that a class is reached by."""
        return {(id(owner), name) for owner, name in self.changed_names()}

    def undo(self) -> list[str]:
        """Take the changes back, newest first; returns the places somebody else changed since."""
        left = []
        while self._changes:
            change = self._changes.pop()
            if _contents(change.owner).get(change.name, _ABSENT) is not change.after:
                name = f"{change.owner.__name__}:{change.name}"
                left.append(name if change.is_rebound else change.target)
            elif isinstance(change.owner, dict):
                del change.owner[change.name]
            elif change.before is _ABSENT:
                delattr(change.owner, change.name)
            else:
                setattr(change.owner, change.name, change.before)
                is_of_module = isinstance(change.owner, ModuleType) and not change.is_rebound
                if is_of_module and callable(change.after):
                    # modules that were imported since have bound ours
                    for module, name in _bound_to(change.after):
                        setattr(module, name, change.before)
        return left

    def _wrapper(self, make: Callable[[Callable], Callable], original: Any) -> Callable:
        wrapper = functools.update_wrapper(make(original), original)
        mark_as_wrapper(wrapper, original)
        return wrapper

    def _set(
        self, target: str, owner: Any, name: str, value: Any, is_rebound: bool = False
    ) -> None:
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._changes.append(_Change(target, is_rebound, owner, name, before, value))

    def _rebind(self, target: str, before: Any, after: Any) -> None:
        for module, name in _bound_to(before):
            self._set(target, module, name, after, is_rebound=True)


def _bound_to(value: Any) -> list[tuple[ModuleType, str]]:
    """The names in modules of the hosts, and of the program, that hold ``value``."""
    return [
        (module, name)
        for module_name, module in list(sys.modules.items())
        if module_name.partition(".")[0] in HOSTS or module_name == "__main__"
        for name, held in list(getattr(module, "__dict__", {}).items())
        if held is value
    ]
