"""Programs that change how imports, threads or files work, with the small hosts of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.activation.environment import SHOW, Environment, clean_environ, write

ACTIVATE = "import mlx_gemma4_patches; mlx_gemma4_patches.activate()"
STATE = (
    "print({p['id']: p['state'] for p in mlx_gemma4_patches.status()['patches']}['mlx_lm.demo'])"
)


@pytest.fixture(scope="module")
def environment(
    make_environment: Callable[[], Environment], wheel: Path, demo: Path
) -> Environment:
    made = make_environment()
    made.link(["gevent", "ipython", "coverage", "pyinstaller", "setuptools"])
    made.install(wheel, demo)
    return made


@pytest.mark.parametrize("first", ["gevent", "host"])
def test_gevent(environment, first):
    steps = ["from gevent import monkey; monkey.patch_all()", "import mlx_lm"]
    code = "\n".join(
        [
            *(steps if first == "gevent" else steps[::-1]),
            "import gevent, importlib",
            "def work():",
            "    importlib.import_module('mlx_lm.fake')",
            "    from mlx_lm.fake import Answer",
            "    return Answer().text()",
            "jobs = [gevent.spawn(work) for _ in range(8)]",
            "gevent.joinall(jobs, raise_error=True)",
            "print(*(job.value for job in jobs))",
        ]
    )
    assert environment.run(code, "-W", "ignore") == " ".join(8 * ["patched"])


def test_autoreload_of_ipython(environment, tmp_path):
    code = f"""
        import os, sys, time
        from IPython.core.interactiveshell import InteractiveShell

        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "autoreload")
        shell.run_line_magic("autoreload", "2")
        shell.run_cell({SHOW!r})
        shell.run_cell("answer = Answer()")
        file = sys.modules["mlx_lm.fake"].__file__
        text = open(file).read()
        open(file, "w").write(text + "changed = True\\n")
        os.utime(file, (time.time() + 10, time.time() + 10))
        shell.run_cell("import mlx_lm.fake; print(mlx_lm.fake.changed)")
        shell.run_cell({SHOW!r})
        shell.run_cell("print(answer.text())")
        open(file, "w").write(text)
    """
    shown = environment.run(code, IPYTHONDIR=str(tmp_path), HOME=str(tmp_path))
    assert shown.split() == ["patched", "True", "patched", "patched"]


def test_coverage(environment, tmp_path):
    program = write(tmp_path / "program.py", SHOW)
    file = {"COVERAGE_FILE": str(tmp_path / "data")}
    for core in ("ctrace", "pytrace"):
        done = environment.process(
            *("-m", "coverage", "run", "--source=mlx_lm", program), COVERAGE_CORE=core, **file
        )
        assert (done.returncode, done.stdout) == (0, "patched\n"), done.stderr
        report = environment.process("-m", "coverage", "report", "--show-missing", **file).stdout
        assert "fake.py" in report


@pytest.mark.parametrize("form", ["--onedir", "--onefile"])
def test_a_program_frozen_by_pyinstaller(environment, tmp_path, form):
    program = write(tmp_path / "program.py", f"{ACTIVATE}\n{SHOW}\n{STATE}\n")
    done = environment.process(
        *("-m", "PyInstaller", form, "--noconfirm", "--distpath", tmp_path / "dist"),
        *("--workpath", tmp_path / "build", "--specpath", tmp_path, program),
        PYINSTALLER_CONFIG_DIR=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "dist" if form == "--onefile" else tmp_path / "dist" / "program"
    frozen = subprocess.run(
        [folder / "program"],
        env={**clean_environ(), "MLX_GEMMA4_PATCHES_DISABLE": environment.disable},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (frozen.stdout.split(), frozen.stderr) == (["patched", "applied"], "")
