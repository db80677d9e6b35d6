"""Gemma 4 on mlx-lm, mlx-vlm and vllm-mlx as in the reference implementation.

How an import of a host goes:

1. At interpreter start a .pth file calls ``activate``, which puts a ``Finder`` first on
   ``sys.meta_path``. Nothing but os and sys is imported until a host is.
2. ``import mlx_lm`` asks the finder. It takes the spec of the finders behind it and stands in for
   the spec's loader. CPython calls finders under the global import lock, so this step imports
   nothing and waits for nothing.
3. Before the package's module is made, the loader starts the ``engine``. It reads the installed
   versions, ``compat_matrix.yaml`` and the entry points, and ``plan`` decides from the versions
   which patches may be needed. The modules of their targets are watched from then on.
4. After a watched module's body has run, the engine compares the source of the targets with the
   fingerprints in the matrix and, where they agree, lets the patch wrap its targets through
   ``surgery``. What became of each patch is kept as a ``Record``.
5. ``status`` and ``doctor`` read the records; ``doctor`` also runs each patch's probe.
"""

import os
import sys

__version__ = "0.1.0"
__all__ = ["HOSTS", "__version__", "activate", "status"]

HOSTS = frozenset(("mlx_lm", "mlx_vlm", "vllm_mlx"))
ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

_failure = None  # why there is no engine though a host was asked for


class Finder:
    """A meta path finder that reports exact module names; other finders find the modules.

    Args:
        names: the modules to report, a set that may grow.
        before: called with a module's spec before the module is made.
        after: called with a module's name and the module after its body has run, at a reload too.
    """

    def __init__(self, names, before, after):
        self.names = names
        self.reported = set()  # a package that is not yet was found by a finder in front of ours
        self.before = before
        self.after = after

    def find_spec(self, name, path=None, target=None):
        # under the global import lock: no import and no lock, or the process may stand still
        if name not in self.names:
            root = name.partition(".")[0]
            if root not in self.names or root in self.reported or root not in sys.modules:
                return None
        if is_off():
            return None
        finders = list(sys.meta_path)
        behind_us = finders.index(self) + 1 if self in finders else 0
        for finder in finders[behind_us:]:
            # importlib.util.find_spec would import the parent and wait for its lock
            if hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    break
        else:
            return None
        # namespace packages have no loader, loaders of the old protocol are left alone, and a
        # finder behind us that asks the whole path brings a spec that is ours already
        if hasattr(spec.loader, "exec_module") and type(spec.loader) is not Loader:
            spec.loader = Loader(spec.loader, self)
        return spec


class Loader:
    """Stands in for a module's loader until the module's body has run.

    Whoever looks at it meanwhile (runpy, pickle, importlib.resources, isinstance) sees the loader
    it stands for.
    """

    def __init__(self, loader, finder):
        self._loader = loader
        self._finder = finder
        self._get_code = getattr(loader, "get_code", None)

    @property  # type: ignore[misc]
    def __class__(self):
        return type(self._loader)

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def __reduce_ex__(self, protocol):
        return self._loader.__reduce_ex__(protocol)

    def get_code(self, name):
        """What ``python -m NAME`` runs."""
        from . import as_main

        return as_main.get_code(name, self._loader, self._get_code)

    def create_module(self, spec):
        self._finder.reported.add(spec.name.partition(".")[0])
        # not in exec_module: once a package is in sys.modules, other threads may import its
        # submodules, and those must be watched by then
        self._finder.before(spec)
        return self._loader.create_module(spec)

    def exec_module(self, module):
        spec = module.__spec__
        if spec.loader is self:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        from importlib.machinery import SourceFileLoader

        if isinstance(self._loader, SourceFileLoader):  # one for each module
            # `python -m` of a module that its package has imported asks the true loader
            self._loader.get_code = self.get_code
        # a body may put something else into sys.modules, which is what importers get
        self._finder.after(spec.name, sys.modules.get(spec.name, module))


def activate() -> None:
    """Have the hosts patched when they are imported, or now if they have been already.

    An installation does this at interpreter start. Programs that run no .pth files (``python -S``,
    zipapps, frozen applications) call it before or after they import a host, any number of times.

    Raises:
        ImportError: with MLX_GEMMA4_PATCHES_STRICT=1, if a host is imported already and our own
            start fails.
    """
    if is_off():
        return
    if sys.meta_path[:1] != [_finder]:
        before = [finder for finder in sys.meta_path if finder is not _finder]
        sys.meta_path[:] = [_finder, *before]
    if not HOSTS.isdisjoint(sys.modules):
        engine = _started_engine()
        if engine:
            engine.serve_imported()


def status() -> dict:
    """Whether the patches are active in this process and what became of each, ready for JSON.

    Returns:
        ``active`` (bool) and ``activation`` (words); once active also ``hosts``, ``patches`` and
        ``problems``.
    """
    module = sys.modules.get(f"{__name__}.engine")
    if module and module.ENGINE:
        return {"active": True, "activation": "active", **module.ENGINE.status()}
    if is_off():
        words = f"off: MLX_GEMMA4_PATCHES={os.environ['MLX_GEMMA4_PATCHES'].strip()}"
    elif _failure:
        words = _failure
    elif _finder in sys.meta_path:
        words = "waiting for the import of a host"
    else:
        words = "inactive: mlx_gemma4_patches.activate() was not called"
    return {"active": False, "activation": words}


def is_off() -> bool:
    """Whether the environment switches everything off; read at every import of a host."""
    return os.environ.get("MLX_GEMMA4_PATCHES", "").strip().lower() in OFF


def _before_import(spec):
    engine = _started_engine()
    if engine:
        engine.before_import(spec)


def _after_import(name, module):
    engine = _started_engine()
    if engine:
        engine.after_import(name, module)


def _started_engine():
    """This process's engine, made at the first import of a host; None if it cannot be."""
    global _failure
    if _failure and not _is_strict():
        return None
    try:
        from . import engine

        return engine.of_this_process()
    except Exception as error:
        failure = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
        if _is_strict():
            raise ImportError(f"mlx-gemma4-patches {failure}") from error
        _failure = failure
        if sys.stderr:
            sys.stderr.write(f"mlx-gemma4-patches {failure}; hosts run without patches\n")
    return None


def _is_strict():
    return os.environ.get("MLX_GEMMA4_PATCHES_STRICT", "").strip().lower() in ON


_finder = Finder(set(HOSTS), _before_import, _after_import)
