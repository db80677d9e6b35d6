"""Runs ``prove`` on a release of the past, with a package that knows only what came before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from mlx_gemma4_patches import matrix
from tests.matrix import environments
from tests.matrix.file import read, save

from .past import rehearse, subject


def main(beginning: str) -> int:
    """Prove on the first combination that begins so, and compare with the evidence."""
    combinations = read(environments.ROOT / matrix.FILE)["combinations"]
    name = next((name for name in combinations if name.startswith(beginning)), None)
    if name is None:
        print(f"no combination begins with {beginning}; {matrix.FILE} names them all")
        return 2
    found = prove(name, combinations[name])
    print(f"{name}: {len(found['proved'])} proved, {len(found['left_off'])} left off")
    for patch_id, why in found["left_off"].items():
        print(f"  {patch_id}: {why}")
    fates = [o for o in rehearse(matrix.load()) if o.combination == name]
    expected = {outcome.patch_id for outcome in fates if outcome.fate == "proof"}
    fine = {outcome.patch_id for outcome in fates if outcome.fate != "proof"}
    missing, wrong = expected - set(found["proved"]), fine & set(found["proved"])
    for patch_id in sorted(missing | wrong):
        should = "should" if patch_id in missing else "should not"
        print(f"  {patch_id} {should} have been proved, by the evidence")
    return 1 if missing or wrong else 0


def prove(name: str, combination: Mapping[str, str]) -> dict[str, Any]:
    """What ``prove --json`` finds in a combination whose release nobody has measured yet.

    Raises:
        RuntimeError: the command printed no JSON.
    """
    python = environments.base(combination["base"])
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        package_before(combination, package)
        environ = environments.environ(combination)
        paths = [str(package), environ["PYTHONPATH"], *_packages(python)]
        alone = own_prefix(python, Path(folder) / "prefix")
        done = subprocess.run(
            [alone, "-m", "mlx_gemma4_patches", "prove", "--json"],
            cwd=folder,  # -m looks here first
            env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
        )
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"{name}: {done.stdout[-500:]}{done.stderr[-2000:]}") from None


def package_before(combination: Mapping[str, str], folder: Path) -> None:
    """A copy of this package whose matrix ends before the combination's release."""
    distribution = subject(combination)
    release = Version(combination[distribution])
    shutil.copytree(
        environments.ROOT / "mlx_gemma4_patches",
        folder / "mlx_gemma4_patches",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    data = read(environments.ROOT / matrix.FILE)

    def earlier(releases: list[str]) -> list[str]:
        return [r for r in releases if Version(r) < release]

    data["releases"][distribution] = earlier(data["releases"][distribution])
    for patch_id, row in data["patches"].items():
        if patch_id.startswith(distribution.replace("-", "_") + "."):
            code = [{**p, "releases": earlier(p["releases"])} for p in row.get("code", [])]
            row["code"] = [part for part in code if part["releases"]]
    save(data, folder / "mlx_gemma4_patches" / matrix.FILE)


def own_prefix(python: str | Path, folder: Path) -> str:
    """An interpreter like ``python`` in an environment of its own: proofs lie in environments."""
    home = subprocess.run(
        [python, "-c", "import sys; print(sys._base_executable)"],
        capture_output=True,
        text=True,
        check=True,
    )
    made = [home.stdout.strip(), "-m", "venv", "--without-pip", folder]
    subprocess.run(made, check=True)
    return str(folder / "bin" / "python")


def _packages(python: str | Path) -> list[str]:
    """Where an interpreter finds packages, but for those it comes with."""
    code = (
        "import sys; print(*(p for p in sys.path if not p.startswith(sys.base_prefix)), sep='\\n')"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.split("\n")
