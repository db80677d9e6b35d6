"""Every patch fails once, at its import and in its apply, on a release that needs it.

The hosts must import all the same, and every other patch must stand as it does otherwise.
``python -m tests.processes.failing_patches`` takes the fewest combinations of releases that need
all patches; names of combinations by their beginnings leave out the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from tests.matrix import environments
from tests.matrix.file import read

FILE = environments.ROOT / "compat_matrix.yaml"
States = dict[str, tuple[str, str]]  # state and reason by patch


def main(only: list[str]) -> int:
    data = read(FILE)
    failures = tried = 0
    for name, patches in _assigned(data).items():
        if only and not any(name.startswith(part) for part in only):
            continue
        print(f"{name}: {len(patches)} patches ...", flush=True)
        combination = data["combinations"][name]
        done = subprocess.run(
            [environments.base(combination["base"]), "-m", __spec__.name, "--here", *patches],
            env={**environments.environ(combination), "MLX_GEMMA4_PATCHES_ENABLE": _opt_in(data)},
            cwd=environments.ROOT,
        )
        tried += len(patches)
        failures += done.returncode != 0
    print(f"{tried} patches, {failures} combinations with failures")
    return 1 if failures else 0


def _assigned(data: dict[str, Any]) -> dict[str, list[str]]:
    """Each patch once, at a combination that needs it; as few combinations as come easily."""
    needed: dict[str, set[str]] = {name: set() for name in data["combinations"]}
    for patch_id, outcomes in data["evidence"].items():
        for name in outcomes.get("fixed", ()):
            needed[name].add(patch_id)
    assigned = {}
    while any(needed.values()):
        name = max(reversed(needed), key=lambda name: len(needed[name]))
        assigned[name] = sorted(needed.pop(name))
        for rest in needed.values():
            rest.difference_update(assigned[name])
    return assigned


def _opt_in(data: dict[str, Any]) -> str:
    return ",".join(i for i, row in data["patches"].items() if row.get("opt_in"))


# what runs on the releases


def here(patches: list[str]) -> int:
    """Let each of ``patches`` fail in a fork of this process, which has no host imported yet."""
    from mlx_gemma4_patches import registry

    for module in ("mlx.core", "mlx.nn", "numpy", "transformers", "fastapi", "datasets", "PIL"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    hosts = {patch_id.partition(".")[0] for patch_id in read(FILE)["patches"]}
    hosts = {host for host in hosts if importlib.util.find_spec(host)}
    points = {point.name: point for point in registry.registered()}
    loaded = [registry.load(points[name]) for name in points if name.partition(".")[0] in hosts]
    modules = sorted({t.partition(":")[0] for patch in loaded for t in patch.targets})
    for name in [n for n in sys.modules if n.startswith("mlx_gemma4_patches.patches.")]:
        del sys.modules[name]

    usual, _ = _in_a_fork(modules, lambda: None)
    wrong = 0
    for patch_id in patches:
        module = points[patch_id].module
        for how, error in ((_FailsAtImport, RuntimeError), (_FailsInApply, SystemExit)):
            states, lines = _in_a_fork(modules, functools.partial(how, module, error))
            faults = list(_faults(patch_id, usual, states, lines))
            wrong += bool(faults)
            for fault in faults:
                print(f"  {patch_id}, {how.__name__}: {fault}", flush=True)
    print(f"  {2 * len(patches)} failures of patches over {len(modules)} modules, {wrong} not held")
    return 1 if wrong else 0


def _faults(patch_id: str, usual: States, states: States, lines: list[str]) -> Iterator[str]:
    if "error" in states:
        yield f"the host does not import: {states['error'][1]}"
        return
    if usual[patch_id][0] != "applied":
        yield f"it is not needed here: {usual[patch_id]}"
    if states[patch_id][0] != "failed" or "made to fail" not in states[patch_id][1]:
        yield f"it is {states[patch_id]}"
    for other in usual:
        if other != patch_id and states[other] != usual[other]:
            yield f"{other} is {states[other]}, not {usual[other]}"
    if len(lines) != 1 or patch_id not in lines[0]:
        yield f"it is reported in {lines}"


def _in_a_fork(modules: Iterable[str], prepare: Callable[[], None]) -> tuple[States, list[str]]:
    """The states after an import of ``modules``, and the lines that we have logged."""
    with tempfile.TemporaryFile("w+") as result, tempfile.TemporaryFile("w+") as log:
        child = os.fork()
        if child == 0:
            try:
                os.dup2(log.fileno(), 2)
                json.dump(_states(modules, prepare), result)
                result.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        result.seek(0)
        log.seek(0)
        lines = [line for line in log if "mlx-gemma4-patches" in line]
        text = result.read() or '{"error": ["", "the process has died"]}'
        return {k: tuple(v) for k, v in json.loads(text).items()}, lines


def _states(modules: Iterable[str], prepare: Callable[[], None]) -> States:
    import mlx_gemma4_patches

    try:
        mlx_gemma4_patches.activate()
        prepare()
        for module in modules:
            if _exists(module):
                importlib.import_module(module)
        status = mlx_gemma4_patches.status()
    except BaseException:
        return {"error": ("", traceback.format_exc()[-600:])}
    return {patch["id"]: (patch["state"], patch["reason"]) for patch in status["patches"]}


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not in this release
        return False


class _FailsAtImport:
    """A finder for one module, which raises when it is executed."""

    def __init__(self, name: str, error: type[BaseException]):
        self.name = name
        self.error = error
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: self.exec_module(run, module)  # type: ignore
        return spec

    def exec_module(self, run: Callable[[ModuleType], None], module: ModuleType) -> None:
        raise self.error("made to fail")


class _FailsInApply(_FailsAtImport):
    """The patch of this module changes what it changes, and then raises."""

    def exec_module(self, run: Callable[[ModuleType], None], module: ModuleType) -> None:
        run(module)
        patch = module.PATCH

        def apply(surgery: Any) -> None:
            patch.apply(surgery)
            raise self.error("made to fail")

        module.PATCH = dataclasses.replace(patch, apply=apply)  # type: ignore[attr-defined]


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(here(arguments[1:]) if arguments[:1] == ["--here"] else main(arguments))
