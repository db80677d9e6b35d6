"""Runs probes, and the checks of ``harm``, in subprocesses: without, with patches, or both.

The child (``python -m mlx_gemma4_patches.doctor.probes``) tells what it is about to do and what
came of it, so that a probe which takes its process down costs only itself: the rest runs in a new
one.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import mlx_gemma4_patches

from .. import plan, proofs, registry
from ..children import TIME_LIMIT, Ended, messages, tell
from ..patch import NotApplicable, State
from ..settings import PREFIX
from ..targets import module_of

Say = Callable[[str, str], None]


def run(
    hosts: Sequence[str],
    ids: Sequence[str],
    say: Say,
    programs: Sequence[str] = (),
    time_limit: float = TIME_LIMIT,
    trial: proofs.Proofs | None = None,
    modes: Sequence[str] = ("stock", "patched"),
    loads: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Run ``ids`` in each of ``modes``, side by side, with every host of ``hosts`` imported.

    Args:
        ids: of patches, whose probes are run, and names of ``harm.CHECKS``.
        say: called with ``("stock" | "patched", what)`` before each step, from two threads.
        programs: modules to import before the hosts.
        time_limit: seconds that one step may take.
        trial: what the patched process takes for proved on this machine, instead of the file.
        loads: hosts, each with a model folder that it is to load without its weights.

    Returns:
        ``{"stock": ..., "patched": ...}``, each ``{"probes": {id: result}, "programs", "hosts" and
        "loads": {module: error or None}, "status": what the process says of itself, "unknown":
        {id: {target: fingerprint, or None}} of patches that are off since no release has the code,
        "ended": how it ended where it should not have, or None}``. A result has ``faulty`` and
        ``measured``, or ``said`` if it is of a check, or ``not_applicable``, or ``error``.
    """
    task = [programs, hosts, trial and proofs.plain(trial)]
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        try:
            jobs = {
                mode: pool.submit(_run, mode, task, ids, say, time_limit, loads, stop)
                for mode in modes
            }
            return {mode: job.result() for mode, job in jobs.items()}
        finally:
            stop.set()


def _run(
    mode: str,
    task: list[Any],
    ids: Sequence[str],
    say: Say,
    time_limit: float,
    loads: Sequence[tuple[str, str]],
    stop: threading.Event,
) -> dict[str, Any]:
    """One mode's findings, from as many children as it takes."""
    environ = {**os.environ, PREFIX: "0" if mode == "stock" else "1"}
    found: dict[str, Any] = {"status": {}, "ended": None}
    found |= {kind: {} for kind in ("probes", "programs", "hosts", "loads", "unknown")}
    while True:
        todo = [name for name in ids if name not in found["probes"]]
        unloaded = [load for load in loads if load[0] not in found["loads"]]
        command = [sys.executable, "-m", __spec__.name, json.dumps([*task, todo, unloaded])]
        step, name = "starting", ""
        try:
            for kind, *message in messages(command, environ, stop, time_limit):
                if kind == "begin":
                    step, name = message
                    say(mode, f"{step} {name}")
                elif kind == "status":
                    (found["status"],) = message
                else:
                    found[kind][message[0]] = message[1]
            return found
        except Ended as how:
            if found["status"]:  # nothing is missing
                return found
            ended = f"{how}, while {step} {name}".rstrip()
            if step == "probing":
                found["probes"][name] = {"error": ended}
            elif step == "loading with":
                found["loads"][name] = ended
            else:
                found["ended"] = ended
                return found


def main(task: str) -> None:
    """The child: import the programs and the hosts, run the probes, tell what was seen."""
    programs, hosts, trial, ids, loads = json.loads(task)
    if trial:
        proofs.use(proofs.parse(trial))
    mlx_gemma4_patches.activate()  # for environments that run no .pth files
    for kind, modules in (("programs", programs), ("hosts", hosts)):
        for name in modules:
            tell("begin", "importing", name)
            tell(kind, name, _import(name))
    for host, path in loads:
        from .checkpoint import load  # after the programs and the hosts, as it needs mlx

        tell("begin", "loading with", host)
        tell("loads", host, load(host, path))
    patches = {entry_point.name: entry_point for entry_point in registry.registered()}
    for name in ids:
        tell("begin", "probing", name)
        tell("probes", name, _result(name, patches))
    _import_pending()
    status = mlx_gemma4_patches.status()
    for patch in status.get("patches", []):
        if patch["state"] == State.FINGERPRINT_MISMATCH.value:
            tell("unknown", patch["id"], _code(patches[patch["id"]]))
    tell("status", status)


def _code(entry_point: registry.metadata.EntryPoint) -> dict[str, str | None]:
    """The fingerprints of a patch's targets, None where there is no such place; empty if unclear.

    Only of our own patches: what another package changes in its own, the file would not notice.
    """
    from .. import engine

    if not registry.is_ours(entry_point):
        return {}
    targets = registry.load(entry_point).targets
    for module in sorted(set(map(module_of, targets))):
        tell("begin", "importing", module)
        _import(module)  # no known code is there, so nothing waits for it
    seen = {target: engine.of_this_process().look(target) for target in targets}
    if {plan.Unseen.NOT_IMPORTED, plan.Unseen.NO_SOURCE} & set(seen.values()):
        return {}
    return {t: None if isinstance(value, plan.Unseen) else value for t, value in seen.items()}


def _result(name: str, patches: dict[str, registry.metadata.EntryPoint]) -> dict[str, Any]:
    try:
        if name not in patches:
            from . import harm  # with mlx, which the command itself may lack

            return {"said": harm.CHECKS[name]()}
        finding = registry.load(patches[name]).probe()
    except NotApplicable as reason:
        return {"not_applicable": str(reason)}
    except Exception as error:
        return {"error": _line(error)}
    return {"faulty": finding.faulty, "measured": finding.measured}


def _import_pending() -> None:
    """Import what waiting patches wait for, so that the status is that of a busy process."""
    for patch in mlx_gemma4_patches.status().get("patches", []):
        for module in patch["waits_for"]:
            tell("begin", "importing", module)
            _import(module)


def _import(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a program may end itself at its import
        return _line(error)
    return None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    main(*sys.argv[1:])
