"""Development tasks: ``nox --list`` names them."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))
from tests.matrix import environments

SIDE_BY_SIDE = ["-n", "auto", "--dist", "loadfile"]  # a file's tests share their servers
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

nox.options.sessions = ["lint", "tests", "activation"]  # the others take long, or all the releases
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


def _install_all_hosts(session: nox.Session) -> None:
    """vllm-mlx too, with all it needs but torch and gradio."""
    session.install("-e", ".[hosts,test]", *environments.NEEDS)
    session.install("--no-deps", "vllm-mlx", *environments.NEEDS_ALONE)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on the newest hosts."""
    session.install("-e", ".[hosts,test]")
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def vllm_mlx(session: nox.Session) -> None:
    """The tests that are about vllm-mlx, with all it needs but torch and gradio."""
    _install_all_hosts(session)
    chosen = ["tests/hosts", "--subject", "vllm_mlx"]
    session.run("pytest", *SIDE_BY_SIDE, *chosen, *session.posargs)


@nox.session(python=PYTHONS)
def activation(session: nox.Session) -> None:
    """Activation, installed as users do, on every Python that is here."""
    session.install("-e", ".", "hatchling", "hypothesis", "pytest", "pytest-xdist")
    session.run("pytest", *SIDE_BY_SIDE, "tests/activation", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, the types of the package's core, and the workflows."""
    session.install("ruff", "mypy", "types-PyYAML", "check-jsonschema", "zizmor", "-e", ".")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("mypy", "--strict", "tests/types/third_party.py")
    workflows = sorted(glob.glob(".github/workflows/*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", ".github/workflows")


@nox.session
def matrix(session: nox.Session) -> None:
    """Every probe and host test on every release; ``-- --write`` records what is measured."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.matrix", *session.posargs)


_PROPERTIES = [
    "tests/unit/test_tool_calls.py",
    "tests/unit/test_channels.py",
    "tests/unit/test_answers.py",
    "tests/hosts/test_mlx_lm_channel_leak.py",
    "tests/hosts/test_vllm_mlx_reasoning_parser.py",
    "tests/hosts/test_vllm_mlx_tool_parser.py",
]


@nox.session
def fuzz(session: nox.Session) -> None:
    """Every parser of what a model says: 100000 cases for each property, and linear time."""
    _install_all_hosts(session)
    session.run("python", "-m", "tests.fuzz")
    chosen = ["-k", "any or read_back or read_as_json or cut_anywhere or in_order"]
    session.run("pytest", "--hypothesis-profile=fuzz", *chosen, *_PROPERTIES, *session.posargs)


@nox.session
def hostile(session: nox.Session) -> None:
    """Every host's real server and hostile requests: no answer is worse with the patches."""
    _install_all_hosts(session)
    for server in (
        ["mlx_lm"],
        ["mlx_vlm"],
        ["vllm_mlx"],
        ["vllm_mlx", "--continuous-batching", "--mllm"],
    ):
        session.run("python", "-m", "tests.hostile", *server)


@nox.session
def processes(session: nox.Session) -> None:
    """gevent, coverage, PyInstaller; and each patch failing once on a release that needs it."""
    session.install("-e", ".[test]", "coverage", "gevent", "ipython", "pyinstaller", "setuptools")
    session.run("pytest", "tests/processes")
    session.run("python", "-m", "tests.processes.failing_patches", *session.posargs)


@nox.session
def neighbours(session: nox.Session) -> None:
    """A chat through programs built on the hosts, stock and patched; names leave out the others."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.neighbours", *session.posargs)


@nox.session
def reuse(session: nox.Session) -> None:
    """The tokens that each turn costs, through every server; ``-- --quick`` for the dearest."""
    _install_all_hosts(session)
    session.run("python", "-m", "tests.hosts.reuse", *session.posargs)


@nox.session
def trace(session: nox.Session) -> None:
    """Checkpoints beside transformers, which needs torch; and that the stored references hold."""
    session.install("-e", ".[hosts,test,trace]")
    session.run("pytest", "tests/trace", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """The hosts' own tests, without our patches and with them; before a release of ours."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.peers", *session.posargs)


@nox.session
def releases(session: nox.Session) -> None:
    """What was published since the matrix was written: measured, written, told."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.releases", *session.posargs)


@nox.session
def machines(session: nox.Session) -> None:
    """Gemma 4 in 2 and 4 processes of this machine, all shapes and types (many minutes)."""
    session.install("-e", ".[hosts,test]")
    session.run("python", "-m", "tests.hosts.machines")


@nox.session
def rehearsal(session: nox.Session) -> None:
    """Every release of the past as if nobody had measured it yet; ``-- --write`` for the README."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.rehearsal", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel and the source archive in dist/, built twice to the same bytes."""
    session.install("build", "twine")
    folders = ("dist", session.create_tmp())
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        session.run("python", "-m", "build", "--outdir", folder)
    for file in sorted(os.listdir("dist")):
        first, second = (Path(folder, file).read_bytes() for folder in folders)
        if first != second:
            session.error(f"{file} is another each time")
        session.log(f"{hashlib.sha256(first).hexdigest()}  {file}")
    session.run("twine", "check", "--strict", *(f"dist/{f}" for f in os.listdir("dist")))
