"""Runs the probes in two subprocesses, one without and one with patches.

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

from .. import registry
from ..children import TIME_LIMIT, Ended, messages, tell
from ..patch import NotApplicable
from ..settings import PREFIX

Told = Callable[[str, str], None]


def run(
    hosts: Sequence[str],
    ids: Sequence[str],
    told: Told,
    programs: Sequence[str] = (),
    time_limit: float = TIME_LIMIT,
    loads: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Probe ``ids`` stock and patched, side by side, with every host of ``hosts`` imported.

    Args:
        told: called with ``("stock" | "patched", what)`` before each step, from two threads.
        programs: modules to import before the hosts.
        time_limit: seconds that one step may take.
        loads: hosts, each with a model folder that it is to load without its weights.

    Returns:
        ``{"stock": ..., "patched": ...}``, each ``{"probes": {id: result}, "programs", "hosts" and
        "loads": {module: error or None}, "status": what the process says of itself, "ended": how
        it ended where it should not have, or None}``. A result has ``faulty`` and ``measured``, or
        ``not_applicable``, or ``error``.
    """
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        try:
            jobs = {
                mode: pool.submit(_run, mode, hosts, ids, told, programs, time_limit, loads, stop)
                for mode in ("stock", "patched")
            }
            return {mode: job.result() for mode, job in jobs.items()}
        finally:
            stop.set()


def _run(
    mode: str,
    hosts: Sequence[str],
    ids: Sequence[str],
    told: Told,
    programs: Sequence[str],
    time_limit: float,
    loads: Sequence[tuple[str, str]],
    stop: threading.Event,
) -> dict[str, Any]:
    """One mode's findings, from as many children as it takes."""
    environ = {**os.environ, PREFIX: "0" if mode == "stock" else "1"}
    found: dict[str, Any] = {"status": {}, "ended": None}
    found |= {kind: {} for kind in ("probes", "programs", "hosts", "loads")}
    while True:
        todo = [name for name in ids if name not in found["probes"]]
        unloaded = [load for load in loads if load[0] not in found["loads"]]
        task = json.dumps([programs, hosts, todo, unloaded])
        command = [sys.executable, "-m", __spec__.name, task]
        step, name = "starting", ""
        try:
            for kind, *message in messages(command, environ, stop, time_limit):
                if kind == "begin":
                    step, name = message
                    told(mode, f"{step} {name}")
                elif kind == "status":
                    (found["status"],) = message
                else:
                    found[kind][message[0]] = message[1]
            return found
        except Ended as how:
            if found["status"]:  # it has told everything
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
    programs, hosts, ids, loads = json.loads(task)
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
        tell("probes", name, _probe(patches[name]))
    _import_pending()
    tell("status", mlx_gemma4_patches.status())


def _probe(entry_point: registry.metadata.EntryPoint) -> dict[str, Any]:
    try:
        finding = registry.load(entry_point).probe()
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
