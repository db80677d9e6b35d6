"""The release of a host that comes out tomorrow: the installed one under a new version."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import mlx_gemma4_patches
from mlx_gemma4_patches import matrix, plan
from mlx_gemma4_patches.patch import State, distribution_of
from mlx_gemma4_patches.record import Record
from mlx_gemma4_patches.targets import locate, module_of, place_of
from tests.hosts import contract
from tests.rehearsal.proving import own_prefix

_STATUS = """
import contextlib, importlib, json, sys
import mlx_gemma4_patches
mlx_gemma4_patches.activate()
importlib.import_module(sys.argv[1])
for _ in range(2):  # what waits for one module may be known then to wait for another
    for patch in mlx_gemma4_patches.status()["patches"]:
        for name in patch["waits_for"]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
print("\\n" + json.dumps(mlx_gemma4_patches.status()))
"""


def _environ(*path: Path) -> dict[str, str]:
    """Of a process that imports from ``path`` first, and else what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*map(str, path), *sys.path]))}


@functools.cache
def status_of_new_process(
    host: str, path: tuple[Path, ...], python: str = sys.executable
) -> tuple[dict[str, Any], str]:
    """The status of a process that has all imported, and our lines on its stderr."""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", _STATUS, host],
        env=_environ(*path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "mlx-gemma4-patches" in line]
    return json.loads(done.stdout.splitlines()[-1]), "\n".join(lines)


def by_id(status: dict[str, Any]) -> dict[str, str]:
    return {patch["id"]: patch["state"] for patch in status["patches"]}


def _whole(record: Record) -> list[str]:
    """The targets on whose bodies a patch depends."""
    (variant,) = plan.variants_to_look_for(record.situation)
    return [target for target in variant.targets if place_of(target) == target]


class TestTomorrow:
    """To be inherited with ``host`` set."""

    host: str

    @pytest.fixture(autouse=True)
    def _host_is_installed(self) -> None:
        pytest.importorskip(self.host)
        name = distribution_of(self.host)
        if metadata.version(name) != matrix.load().releases[name][-1]:
            pytest.skip("what came after this release is known")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """The host again, of a later version; its files are links."""
        found = metadata.distribution(distribution_of(self.host))
        # later than this one, and none that was measured whichever is installed
        self.version = f"{found.version}.post1"
        source = Path(str(found.locate_file(self.host)))
        shutil.copytree(
            source,
            tmp_path / self.host,
            copy_function=os.symlink,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        info = tmp_path / f"{self.host}-{self.version}.dist-info"
        info.mkdir()
        text = found.read_text("METADATA").replace(
            f"\nVersion: {found.version}\n", f"\nVersion: {self.version}\n"
        )
        (info / "METADATA").write_text(text)
        return tmp_path

    @pytest.fixture
    def python(self, tmp_path: Path) -> str:
        """An interpreter in an environment of its own, where proofs may be written."""
        return own_prefix(sys.executable, tmp_path / "environment")

    def status(self, *path: Path, python: str = "") -> tuple[dict[str, Any], str]:
        return status_of_new_process(self.host, path, python or sys.executable)

    def prove(self, python: str, folder: Path, *options: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [python, "-m", "mlx_gemma4_patches", "prove", *options],
            env=_environ(folder),
            capture_output=True,
            text=True,
        )

    def change(self, folder: Path, line: str) -> set[str]:
        """Put ``line`` into a patched function; returns the patches that it is a target of."""
        for record in list(mlx_gemma4_patches.engine.ENGINE.records.values()):  # imports add some
            if record.host != self.host or not contract.record(record.id).state.is_on:
                continue
            if record.situation.row.kind == "add":  # it may surround what it has no use for
                continue
            for target in _whole(record):
                place = self._place(target, folder)
                if place:
                    file, number, indent = place
                    lines = file.read_text().splitlines(keepends=True)
                    file.unlink()  # the link
                    file.write_text(
                        "".join([*lines[:number], f"{indent}{line}\n", *lines[number:]])
                    )
                    return {
                        other.id
                        for other in mlx_gemma4_patches.engine.ENGINE.records.values()
                        if other.surgery and target in _whole(other)
                    }
        raise AssertionError("no patch is applied whose target is a plain function")

    def _place(self, target: str, folder: Path) -> tuple[Path, int, str] | None:
        """File, number of the first line of the body, and its indent."""
        owner, name = locate(target)
        module = sys.modules[module_of(target)]
        file = folder.joinpath(*module.__name__.split(".")).with_suffix(".py")
        if owner is not module or not file.is_file():
            return None
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith(f"def {name}("):
                while not lines[number].rstrip().endswith(":"):
                    number += 1
                return file, number + 1, "    "
        return None

    def test_with_the_code_of_today_it_is_treated_as_todays(self, folder):
        status, said = self.status(folder)
        today, said_today = self.status()
        assert by_id(status) == by_id(today)
        assert said == said_today
        for patch in status["patches"]:  # nobody has measured it
            assert f"{self.version} was measured" not in patch["reason"]

    @pytest.mark.parametrize("line", ["# a comment", "_ = None"], ids=["comment", "statement"])
    def test_where_a_function_changed_its_patches_are_off_and_one_line_says_so(self, folder, line):
        theirs = self.change(folder, line)
        status, said = self.status(folder)
        states, today = by_id(status), by_id(self.status()[0])
        changed = {name for name in today if states[name] != today[name]}
        assert changed == theirs
        assert {states[name] for name in theirs} == {State.FINGERPRINT_MISMATCH.value}
        # a patch that is off may leave others to be replaced by the host, which is said too
        (message,) = [line for line in said.splitlines() if "patches are off" in line]
        release = f"{distribution_of(self.host)} {self.version}"
        assert f"{len(theirs)} of" in message
        assert f"patches are off on {release}" in message

    def test_what_a_change_has_put_off_is_proved_back_and_can_be_forgotten(self, folder, python):
        theirs, today = self.change(folder, "_ = None"), by_id(self.status()[0])
        done = self.prove(python, folder, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert set(found["proved"]) == theirs
        assert found["left_off"] == {}
        for proof in found["proved"].values():
            assert proof["release"] == f"{distribution_of(self.host)} {self.version}"
            assert proof["stock"] != proof["patched"]

        status_of_new_process.cache_clear()
        status, said = self.status(folder, python=python)
        assert by_id(status) == today
        assert said == ""
        for patch in status["patches"]:
            assert patch["reason"].startswith("proved here on") == (patch["id"] in theirs)

        assert self.prove(python, folder, "--forget").returncode == 0
        status_of_new_process.cache_clear()
        states = by_id(self.status(folder, python=python)[0])
        assert {states[name] for name in theirs} == {State.FINGERPRINT_MISMATCH.value}
