"""Development tasks: ``nox --list`` names them."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))
from tests.matrix import environments

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

nox.options.error_on_missing_interpreters = False  # nox names those it skips


def _runs(python: str | None, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python or "", "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == version


def _show_interpreters_to_nox() -> None:
    """Put installed interpreters on PATH that are not, or only as a shim that refuses to run."""
    pyenv = os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")
    for version in PYTHONS:
        if _runs(shutil.which(f"python{version}"), version):
            continue
        for python in glob.glob(f"{pyenv}/versions/{version}.*/bin/python{version}"):
            if _runs(python, version):
                os.environ["PATH"] = os.pathsep.join((str(Path(python).parent), os.environ["PATH"]))
                break


_show_interpreters_to_nox()


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on the newest hosts."""
    session.install("-e", ".[hosts,test]")
    session.run("pytest", *session.posargs)


@nox.session
def vllm_mlx(session: nox.Session) -> None:
    """The tests that are about vllm-mlx, with all it needs but torch and gradio."""
    session.install("-e", ".[hosts,test]", *environments.NEEDS)
    session.install("--no-deps", "vllm-mlx", *environments.NEEDS_ALONE)
    session.run("pytest", "tests/hosts", "--subject", "vllm_mlx", *session.posargs)


@nox.session(python=PYTHONS)
def activation(session: nox.Session) -> None:
    """Activation, installed as users do, on every Python that is here."""
    session.install("-e", ".", "hatchling", "hypothesis", "pytest")
    session.run("pytest", "tests/activation", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the types of the package's core."""
    session.install("ruff", "mypy", "types-PyYAML", "-e", ".")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def matrix(session: nox.Session) -> None:
    """Every probe and host test on every release; ``-- --write`` records what is measured."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.matrix", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """The hosts' own tests, without our patches and with them; before a release of ours."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.peers", *session.posargs)
