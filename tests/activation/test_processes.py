"""Unusual processes, and unusual places for our files."""

from __future__ import annotations

import compileall
import json
import multiprocessing
import shutil
import subprocess
import zipapp
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .environment import SHOW, Environment, build_patch_package, clean_environ, write
from .test_activation import FINDERS, STATUS

ACTIVATE = "import mlx_gemma4_patches; mlx_gemma4_patches.activate()"
STATE = (
    "import mlx_gemma4_patches as package; "
    "print({p['id']: p['state'] for p in package.status()['patches']}['mlx_lm.demo'])"
)


@pytest.fixture
def own(make_environment: Callable[[], Environment], wheel: Path, demo: Path) -> Environment:
    """With our wheel and the demo, for a test that changes it."""
    environment = make_environment()
    environment.install(wheel, demo)
    return environment


@pytest.fixture
def target(bare: Environment, wheel: Path, demo: Path, tmp_path: Path) -> Path:
    """The folder of a ``pip install --target``, which is no site-packages."""
    folder = tmp_path / "target"
    bare.install("--target", folder, wheel, demo)
    return folder


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            *(["-E"], ["-s"], ["-O"], ["-OO"], ["-I", "-OO"], ["-b", "-b"]),
            *(["-X", "frozen_modules=off"], ["-X", "dev"], ["-W", "error"]),
        ],
        ids=" ".join,
    )
    def test_a_host_is_patched(self, installed, options):
        assert installed.run(SHOW, *options) == "patched"

    def test_a_host_is_patched_while_every_line_is_traced(self, installed):
        code = f"""
            import sys, threading

            def trace(frame, event, argument):
                files.add(frame.f_code.co_filename)
                return trace

            files = set()
            threading.settrace(trace)
            sys.settrace(trace)
            {SHOW}
            sys.settrace(None)
            print(any(file.endswith("engine.py") for file in files))
        """
        assert installed.run(code).split() == ["patched", "True"]

    def test_a_debugger_can_step_through_the_import(self, installed):
        code = f"""
            import bdb, mlx_gemma4_patches.engine

            class Stepper(bdb.Bdb):
                steps = 0

                def user_line(self, frame):
                    self.steps += 1
                    self.set_step()

            stepper = Stepper(skip=["yaml.*", "re.*", "re", "importlib_metadata.*"])
            stepper.run("{SHOW}")
            print(stepper.steps > 1000)
        """
        assert installed.run(code).split() == ["patched", "True"]

    def test_a_debugger_can_run_a_program(self, installed, tmp_path):
        done = installed.process("-m", "pdb", "-c", "continue", write(tmp_path / "p.py", SHOW))
        assert done.stdout.split("\n")[0] == "patched"


class TestChildren:
    @pytest.mark.parametrize("before", ["", "import mlx_lm", "import mlx_lm.fake"])
    @pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
    def test_are_patched(self, installed, tmp_path, method, before):
        program = f"""
            import multiprocessing

            def show():
                {SHOW}

            if __name__ == "__main__":
                {before or "pass"}
                child = multiprocessing.get_context("{method}").Process(target=show)
                child.start()
                child.join()
        """
        done = installed.process("-W", "ignore", write(tmp_path / "program.py", program))
        assert (done.stdout, done.stderr) == ("patched\n", "")


class TestPlaces:
    def test_nothing_is_written(self, installed, tmp_path):
        before = installed.files()
        variables = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
        assert installed.run(f"{SHOW}; {STATE}", **variables).split() == ["patched", "applied"]
        assert installed.files() == before
        assert list(tmp_path.iterdir()) == []

    def test_compiled_files_of_ours_without_source(self, own):
        _compile_away(own.site / "mlx_gemma4_patches")
        assert own.run(f"{SHOW}; {STATE}").split() == ["patched", "applied"]

    def test_compiled_files_of_a_host_without_source(self, own):
        _compile_away(own.site / "mlx_lm")  # of a release that the matrix does not know
        done = own.process("-c", f"{SHOW}; {STATE}")
        assert (done.returncode, done.stdout.split()) == (0, ["stock", "fingerprint_mismatch"])
        (line,) = done.stderr.splitlines()
        assert "1 of 1 patches are off on mlx-lm 9.9" in line

    def test_a_zipapp(self, installed, tmp_path):
        contents = tmp_path / "contents"
        shutil.copytree(installed.site, contents)
        write(contents / "__main__.py", f"{ACTIVATE}\n{SHOW}\n{STATE}\n")
        archive = tmp_path / "program.pyz"
        zipapp.create_archive(contents, archive)
        done = installed.process("-I", "-S", archive)
        assert (done.stdout.split(), done.stderr) == (["patched", "applied"], "")

    def test_a_target_folder_needs_a_call(self, bare, target):
        path = {"PYTHONPATH": str(target)}
        assert bare.run(SHOW, **path) == "stock"
        assert bare.run(f"{ACTIVATE}; {SHOW}", **path) == "patched"

    def test_a_target_folder_that_is_made_a_site_needs_none(self, bare, target):
        assert bare.run(f"import site; site.addsitedir({str(target)!r}); {SHOW}") == "patched"

    def test_the_site_of_a_user(self, make_environment, wheel, demo, tmp_path):
        environment = make_environment()
        config = environment.folder / "pyvenv.cfg"
        config.write_text(config.read_text().replace("packages = false", "packages = true"))
        base = {"PYTHONUSERBASE": str(tmp_path)}
        user = environment.run("import site; print(site.getusersitepackages())", **base)
        environment.install("--target", user, wheel, demo)
        assert environment.run(SHOW, **base) == "patched"
        assert environment.run(SHOW, "-s", **base) == "stock"

    def test_two_copies_are_one(self, installed, target):
        twice = f"import site; site.addsitedir({str(target)!r})"
        code = f"{twice}\n{SHOW}\n{FINDERS}\n{STATUS}"
        for path in ("", str(target)):
            shown, finders, status = installed.run(code, PYTHONPATH=path).split("\n")
            assert (shown, finders) == ("patched", "Finder")
            assert json.loads(status)["problems"] == []


class TestFilesThatGo:
    """An upgrade or an uninstallation while a process runs."""

    @pytest.fixture
    def start(self, own: Environment) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
        """Starts a program of two parts and waits until it has run the first."""
        started = []

        def start(first: str, second: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [
                    own.python,
                    "-c",
                    f"{first}; print(flush=True); import sys; sys.stdin.read(); {second}",
                ],
                env={**clean_environ(), "MLX_GEMMA4_PATCHES_DISABLE": own.disable},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            process.stdout.readline()
            return process

        yield start
        for process in started:
            process.kill()
            process.wait()

    def test_before_a_host_is_imported(self, own, start):
        process = start("import sys", SHOW)
        own.uninstall("mlx-gemma4-patches")
        shown, errors = process.communicate(timeout=60)
        assert (process.returncode, shown) == (0, "stock\n")
        (line,) = errors.splitlines()
        assert line.startswith("mlx-gemma4-patches failed: ImportError: cannot import name 'engine")
        assert line.endswith("hosts run without patches")

    def test_before_a_patched_module_is_imported(self, own, start):
        # a patch of a third party was loaded with its row
        process = start("import mlx_lm", f"{SHOW}; {STATE}; import mlx_vlm.fake")
        own.uninstall("gemma4-demo")
        shown, errors = process.communicate(timeout=60)
        assert (process.returncode, shown.split(), errors) == (0, ["patched", "applied"], "")

    def test_once_everything_is_imported(self, own, start):
        process = start("import mlx_lm.fake", f"{SHOW}; import mlx_vlm.server, vllm_mlx.server")
        own.uninstall("gemma4-demo")
        own.uninstall("mlx-gemma4-patches")
        shown, errors = process.communicate(timeout=60)
        assert (process.returncode, shown.split()[0]) == (0, "patched")
        assert len(errors.splitlines()) <= 1


def test_a_test_runner_in_each_of_its_import_modes(own, tmp_path):
    own.link(["pytest"])
    test = "from mlx_lm.fake import Answer\ndef test(): assert Answer().text() == 'patched'\n"
    write(tmp_path / "test_it.py", test)
    for mode in ("prepend", "append", "importlib"):
        done = own.process("-m", "pytest", "-q", f"--import-mode={mode}", tmp_path)
        assert done.returncode == 0, done.stdout


def test_a_patch_that_hangs_can_be_left_out(own, tmp_path):
    hangs = "import time\nprint('hangs', flush=True)\ntime.sleep(3600)\n"
    own.install(build_patch_package("hangs", hangs, tmp_path))
    process = subprocess.Popen(
        [own.python, "-c", SHOW], stdout=subprocess.PIPE, text=True, env=clean_environ()
    )
    assert process.stdout.readline() == "hangs\n"  # and with it the import, as any would
    process.kill()
    process.communicate()
    disable = f"{own.disable},mlx_lm.hangs"
    assert own.run(SHOW, MLX_GEMMA4_PATCHES_DISABLE=disable) == "patched"


def _compile_away(package: Path) -> None:
    """Leave the .pyc files of a package alone."""
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for source in package.rglob("*.py"):
        source.unlink()
