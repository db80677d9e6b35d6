"""What the doctor finds: one JSON-able dictionary, whoever prints it."""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx_gemma4_patches

from .. import matrix, proofs, registry
from ..patch import State, distribution_of
from ..settings import Settings
from . import probes

CONTEXT = 32768  # tokens
PTH = "mlx_gemma4_patches_activate.pth"

# distributions that are known to change hosts when they are imported, and what to import
PATCHERS = {"fusion-mlx": "fusion_mlx", "mlx-optiq": "optiq", "vmlx": "vmlx_engine"}

# verdicts that leave the user with a fault or the doctor without an answer
UNHEALTHY = {
    "fault_left": "the fault is there and no patch is on it",
    "not_removed": "the patch is on and the fault is still there",
    "not_shown": "the patch is on, but the fault does not show without it",
    "error": "the probe itself failed",
}


def examine(
    with_probes: bool,
    say: probes.Say,
    programs: Sequence[str] = (),
    model: Path | None = None,
    context: int = CONTEXT,
) -> dict[str, Any]:
    """Examine this installation, and a checkpoint if one is given.

    Args:
        with_probes: run every probe live; otherwise the hosts are imported and nothing is proved.
        say: see ``probes.run``.
        programs: modules to import first, such as a server that embeds a host.
        model: the folder of a checkpoint.
        context: tokens of the conversation whose KV cache is counted.

    Returns:
        Keys: environment, activation, imported (the programs), patches (each with state, reason
        and verdict), conflicts, advice, problems, unimportable (hosts), model (what
        ``checkpoint.examine`` returns, or None), healthy.

    Raises:
        matrix.MatrixError: the matrix cannot be read.
    """
    known = matrix.load()
    versions = registry.installed_versions({*registry.DISTRIBUTIONS, *known.distributions})
    hosts = [host for host in sorted(mlx_gemma4_patches.HOSTS) if _is_installed(host)]
    ids = [e.name for e in registry.registered() if e.name.partition(".")[0] in hosts]
    checkpoint, loads, unexamined = None, [], []
    if model is not None:
        say("patched", "reading the checkpoint")
        try:
            from . import checkpoint as checkpoints
        except ImportError as error:
            unexamined = [f"the checkpoint was not examined, which needs mlx: {error}"]
        else:
            checkpoint = checkpoints.examine(model, context)
            able = checkpoints.loaders(hosts) if checkpoint["sound"] else []
            loads = [(host, str(model)) for host in able]
    runs = probes.run(hosts, ids if with_probes else [], say, programs, loads=loads)
    if checkpoint is not None:
        checkpoints.judge_loading(checkpoint, {mode: run["loads"] for mode, run in runs.items()})
    status = runs["patched"]["status"]
    owners = status.get("owners", {})
    patches = [
        _judge(patch, runs["stock"]["probes"], runs["patched"]["probes"], known, with_probes)
        for patch in status.get("patches", [])
    ]
    for patch in patches:
        if patch["id"].partition(".")[0] in owners and not State(patch["state"]).is_on:
            patch["verdict"] = "foreign"
    problems = [*unexamined, *status.get("problems", []), *_import_problems(runs)]
    if not hosts:
        problems.append("no host is installed: install mlx-lm, mlx-vlm or vllm-mlx beside this")
    elif not runs["patched"]["ended"] and not status.get("active") and Settings.read().on:
        problems.append("the patches did not become active in a new process")
    return {
        "environment": _environment(versions, hosts, owners),
        "activation": _activation(status),
        "imported": list(programs),
        "patches": patches,
        "conflicts": _conflicts(patches, status),
        "advice": [
            *known.advise(versions),
            *_to_prove(patches),
            *map(_whose, owners.items()),
            *_patchers(programs),
        ],
        "problems": problems,
        "unimportable": [host for host, error in runs["patched"]["hosts"].items() if error],
        "model": checkpoint,
        "healthy": not problems
        and not any(p["verdict"] in UNHEALTHY for p in patches)
        and not any(f["level"] == "problem" for f in (checkpoint or {}).get("findings", ())),
    }


def _import_problems(runs: dict[str, Any]) -> list[str]:
    """What the two processes could not import, and how they ended if not in peace."""
    stock, patched = runs["stock"], runs["patched"]
    found = []
    for name, error in patched["programs"].items():
        if error:
            where = "" if stock["programs"].get(name) else " with the patches"
            found.append(f"{name} (--import) cannot be imported{where}: {error}")
    for name, error in stock["programs"].items():
        if error and not patched["programs"].get(name):
            found.append(f"{name} (--import) cannot be imported without the patches: {error}")
    for host, error in patched["hosts"].items():
        if error:
            found.append(f"{host} cannot be imported: {error}")
    for words, run in (("without", stock), ("with", patched)):
        if run["ended"]:
            found.append(f"{words} the patches: {run['ended']}")
    return found


def _to_prove(patches: list[dict[str, Any]]) -> list[str]:
    off = State.FINGERPRINT_MISMATCH.value
    count = sum(p["state"] == off and p["verdict"] != "not_needed" for p in patches)
    if not count:
        return []
    return [
        f"{count} of the patches are off since the code is none that they were written for: "
        f"`{proofs.COMMAND}` tries them on this machine and keeps those that hold"
    ]


def _patchers(programs: Sequence[str]) -> list[str]:
    """Installed programs that change the hosts too and were not imported."""
    installed = registry.installed_versions(PATCHERS)
    return [
        f"{name} {installed[name]} changes the hosts too; with it: doctor --import {module}"
        for name, module in PATCHERS.items()
        if name in installed and module not in programs
    ]


def _judge(
    patch: dict[str, Any], stock: dict, patched: dict, known: matrix.Matrix, with_probes: bool
) -> dict[str, Any]:
    before, after = stock.get(patch["id"]), patched.get(patch["id"])
    row = known.rows.get(patch["id"])
    state = State(patch["state"])
    verdict = _verdict(state, before, after, bool(row and row.opt_in), with_probes)
    if row and row.kind == "add" and state is State.NOT_NEEDED and verdict == "fault_left":
        verdict = "not_needed"  # nothing is wrong where a capability is not offered
    return {**patch, "stock": before, "patched": after, "verdict": verdict}


def _verdict(
    state: State, before: dict | None, after: dict | None, opt_in: bool, with_probes: bool
) -> str:
    if not with_probes or before is None or after is None:
        left = (State.FAILED, State.FINGERPRINT_MISMATCH, State.OVERWRITTEN)
        return "fault_left" if state in left else "not_probed"
    if "error" in before or "error" in after:
        return "error"
    if "not_applicable" in before and "not_applicable" in after:
        return "not_applicable"
    if after.get("faulty"):
        if opt_in and not state.is_on:
            return "opt_in"
        return "not_removed" if state.is_on else "fault_left"
    if state.is_on:
        return "proved" if before.get("faulty") else "not_shown"
    return "not_needed"


def _environment(versions: dict, hosts: list[str], owners: dict[str, str]) -> dict[str, Any]:
    return {
        "package": mlx_gemma4_patches.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(terse=True),
        "device": _device(),
        "mlx": _text(versions, "mlx"),
        "transformers": _text(versions, "transformers"),
        "hosts": {
            host: owners.get(host) or _text(versions, distribution_of(host)) for host in hosts
        },
    }


def _whose(owned: tuple[str, str]) -> str:
    host, owner = owned
    return (
        f"{host} here is that of {owner}, not of {distribution_of(host)}: it is patched where its "
        "code is the same, and not judged where it is not"
    )


def _device() -> str:
    try:
        import mlx.core as mx
    except ImportError as error:
        return f"none: mlx cannot be imported ({error})"
    return str(mx.default_device())


def _text(versions: dict, name: str) -> str:
    return str(versions[name] or "of unknown version") if name in versions else "not installed"


def _activation(status: dict[str, Any]) -> dict[str, Any]:
    folder = Path(sysconfig.get_path("purelib"))
    return {
        "on": Settings.read().on,
        "pth": str(folder / PTH) if (folder / PTH).is_file() else None,
        "active_in_new_process": bool(status.get("active")),
    }


def _conflicts(patches: list[dict[str, Any]], status: dict[str, Any]) -> list[str]:
    found = [
        f"{patch['id']}: {patch['reason']}"
        for patch in patches
        if patch["state"] == State.OVERWRITTEN.value or "wrapped by" in patch["reason"]
    ]
    if "vllm_mlx" in status.get("hosts", {}):
        found.append(
            "vllm-mlx brings a Gemma 4 patch of its own for mlx_vlm's Attention; "
            "vllm_mlx.attention_patch_mismatch decides whether it may act"
        )
    return found


def _is_installed(host: str) -> bool:
    return find_spec(host) is not None
