"""Runs the probes in two subprocesses, one without and one with patches.

The child (``python -m mlx_gemma4_patches.doctor.probes ID...``) prints one JSON line for each
probe, so that a probe which takes its process down costs only itself: the rest runs in a new one.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import mlx_gemma4_patches

from .. import registry
from ..patch import NotApplicable
from ..settings import PREFIX

TIME_LIMIT = 180  # seconds for one child
_MARK = "\x1emlx-gemma4-patches "  # hosts print to stdout as well

Told = Callable[[str, str], None]


def run(hosts: list[str], ids: list[str], told: Told) -> dict[str, Any]:
    """Probe ``ids`` stock and patched, side by side, with every host of ``hosts`` imported.

    Args:
        told: called with ``("stock" | "patched", id)`` after each probe, from two threads.

    Returns:
        ``{"stock": ..., "patched": ...}``, each ``{"probes": {id: result}, "hosts": {host: error
        or None}, "status": what the process says of itself}``. A result has ``faulty`` and
        ``measured``, or ``not_applicable``, or ``error``.
    """
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = {
            mode: pool.submit(_children, mode, hosts, ids, told) for mode in ("stock", "patched")
        }
        return {mode: job.result() for mode, job in jobs.items()}


def _children(mode: str, hosts: list[str], ids: list[str], told: Told) -> dict[str, Any]:
    found: dict[str, Any] = {"probes": {}, "hosts": {}, "status": {}}
    todo = list(ids)
    while True:
        died = _child(mode, hosts, todo, found, told)
        todo = [name for name in todo if name not in found["probes"]]
        if died is None or not todo:
            return found
        found["probes"][todo[0]] = {"error": died}
        told(mode, todo[0])


def _child(mode: str, hosts: list[str], ids: list[str], found: dict, told: Told) -> str | None:
    """Fill ``found`` from one child; returns how it died before its end, or None."""
    environ = {**os.environ, PREFIX: "0" if mode == "stock" else "1"}
    command = [sys.executable, "-m", __spec__.name, ",".join(hosts), *ids]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ
        )
        killer = threading.Timer(TIME_LIMIT, child.kill)
        killer.start()
        try:
            for line in child.stdout:
                _, mark, message = line.partition(_MARK)
                if mark:
                    kind, name, result = json.loads(message)
                    if kind == "status":
                        found["status"] = result
                    else:
                        found[kind][name] = result
                    if kind == "probes":
                        told(mode, name)
        finally:
            killer.cancel()
            code = child.wait()
        if code == 0:
            return None
        errors.seek(0)
        last = [line.strip() for line in errors if line.strip()][-1:]
        return f"the process ended with {code}: {last[0] if last else 'no message'}"


def main(hosts: str, *ids: str) -> None:
    """The child: import the hosts, run the probes, print what was seen."""
    mlx_gemma4_patches.activate()  # for environments that run no .pth files
    for host in filter(None, hosts.split(",")):
        _tell("hosts", host, _import(host))
    patches = {entry_point.name: entry_point for entry_point in registry.registered()}
    for name in ids:
        _tell("probes", name, _probe(patches[name]))
    _import_pending()
    _tell("status", "", mlx_gemma4_patches.status())


def _probe(entry_point: registry.metadata.EntryPoint) -> dict[str, Any]:
    try:
        finding = registry.load(entry_point).probe()
    except NotApplicable as reason:
        return {"not_applicable": str(reason)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"faulty": finding.faulty, "measured": finding.measured}


def _import_pending() -> None:
    """Import what waiting patches wait for, so that the status is that of a busy process."""
    for patch in mlx_gemma4_patches.status().get("patches", []):
        for module in patch["waits_for"]:
            _import(module)


def _import(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _tell(kind: str, name: str, result: Any) -> None:
    print(f"\n{_MARK}{json.dumps([kind, name, result])}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
