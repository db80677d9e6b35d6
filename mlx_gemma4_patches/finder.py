"""The import hooks: told before a host's package runs, and after a watched module has run.

Another finder always finds the module. We only stand between its loader and the import system for
as long as the module's body takes, and hold no lock while anything is imported or told.
"""

from __future__ import annotations

import importlib.machinery
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from .settings import Settings, log

ARMING = threading.Lock()  # two threads may import their first hosts at once


def take_place(sentinel: Any, finder: Finder) -> Finder:
    """Put ``finder`` where ``sentinel`` stands on ``sys.meta_path``."""
    if sentinel in sys.meta_path:
        sys.meta_path[sys.meta_path.index(sentinel)] = finder
    else:
        sys.meta_path.insert(0, finder)
    return finder


class Finder:
    """A meta path finder for exact module names.

    Args:
        roots: top-level packages to watch.
        before_root: called with a root's name before the root is imported, until it succeeds once.
        on_import: called with a watched module after its body has run, after a reload too.

    An error of either is logged as one warning and never reaches the host, unless
    MLX_GEMMA4_PATCHES_STRICT=1 asks for an ImportError.
    """

    def __init__(
        self,
        roots: frozenset[str],
        before_root: Callable[[str], None],
        on_import: Callable[[ModuleType], None],
    ):
        self._watched = set(roots)
        self._unseen = set(roots)
        self._before_root = before_root
        self._on_import = on_import
        self._thread = threading.local()

    def watch(self, names: Iterable[str]) -> None:
        """Also report modules of these names."""
        self._watched.update(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._watched:
            return None
        asked = self._of_this_thread("asked")
        if name in asked:  # a finder behind us asks the whole path in its turn
            return None
        asked.add(name)
        try:
            spec = self._find_behind_us(name, path, target)
        finally:
            asked.discard(name)
        # namespace packages have no loader, and a loader of the old protocol is left alone
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = PatchingLoader(spec.loader, self)
        return spec

    def _of_this_thread(self, kind: str) -> set[str]:
        return self._thread.__dict__.setdefault(kind, set())

    def _find_behind_us(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        # importlib.util.find_spec would import the parent and wait for its lock: a thread that
        # imports a submodule for the parent's running body would never come back
        finders = list(sys.meta_path)
        behind = finders.index(self) + 1 if self in finders else 0
        for finder in finders[behind:]:
            if hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None

    def before(self, name: str) -> None:
        """The module ``name`` is about to be made."""
        if name not in self._unseen:
            return
        announced = self._of_this_thread("announced")
        if name in announced:  # its body would run twice
            raise ImportError(f"{name} is imported by a patch that {name} waits for", name=name)
        announced.add(name)
        try:
            if self._tell(self._before_root, name, name):
                self._unseen.discard(name)
        finally:
            announced.discard(name)

    def after(self, name: str, module: ModuleType) -> None:
        """The body of the module ``name`` has run."""
        self._tell(self._on_import, module, name)

    def _tell(self, hook: Callable[[Any], None], argument: Any, name: str) -> bool:
        try:
            hook(argument)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            message = f"mlx-gemma4-patches: {name} runs without patches: {reason}"
            if Settings.read().strict:
                raise ImportError(message, name=name) from error
            log.warning(message)
            return False
        return True


class PatchingLoader:
    """Stands in for a module's loader until the module's body runs.

    Whoever looks at it meanwhile (runpy, pickle, importlib.resources, isinstance) sees the loader
    it stands for.
    """

    def __init__(self, loader: Any, finder: Finder):
        self._loader = loader
        self._finder = finder
        self._get_code = getattr(loader, "get_code", None)

    @property
    def __class__(self) -> type:
        return type(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._loader.__reduce_ex__(protocol)

    def get_code(self, name: str) -> Any:
        """Asked for by ``python -m NAME``."""
        try:
            from . import as_main

            return as_main.code(name, self._loader)
        except Exception as error:  # no source; the module runs as it is
            log.debug("%s runs as __main__ without patches of its own: %r", name, error)
            return self._get_code(name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        # not in exec_module: as soon as a package is in sys.modules, other threads may import
        # submodules of it, and those must be watched by then
        self._finder.before(spec.name)
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec.loader is self:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        if isinstance(self._loader, importlib.machinery.SourceFileLoader):
            # `python -m` of what its package has imported asks the true loader
            self._loader.get_code = self.get_code
        # a body may put something else into sys.modules, which is what importers get
        self._finder.after(spec.name, sys.modules.get(spec.name, module))
