"""The hosts' own tests on their published wheels, without our patches and with them.

``python -m tests.peers`` runs them on the releases below, ``python -m tests.peers "mlx-lm 0.32.2"``
on one. It fails where a test passes without the patches and not with them, unless
``tests/peers/known.py`` says why.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Mapping
from pathlib import Path

from tests.matrix import environments
from tests.matrix.__main__ import FILE, SUBJECTS
from tests.matrix.file import read

from . import sources
from .known import KNOWN
from .sources import PLACES

RELEASES = (
    *("mlx-lm 0.31.3", "mlx-lm 0.32.2", "mlx-vlm 0.6.9", "mlx-vlm 0.7.10"),
    *("vllm-mlx 0.4.1", "vllm-mlx 0.6.0"),
)
HOURS = 2  # a suite that takes longer hangs
_MODEL = re.compile(r"""["']((?:mlx-community|google)/[\w.-]+)["']""")


def main() -> int:
    options = _parser().parse_args()
    if options.tests and len(options.releases) != 1:
        _parser().error("--tests goes with one release")
    broken = 0
    for release in options.releases or RELEASES:
        distribution, _, version = release.partition(" ")
        try:
            tests = (
                sources.tests_in(distribution, options.tests)
                if options.tests
                else sources.tests_of(distribution, version)
            )
            broken += _compare(release, tests)
        except sources.NoTests as error:
            print(f"{release}: {error}")
            broken += 1
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tests", type=Path, help="a checkout of the host to take the tests from")
    parser.add_argument("releases", nargs="*", type=_release, help="such as 'mlx-lm 0.32.2'")
    return parser


def _release(text: str) -> str:
    if text.partition(" ")[0] not in PLACES or _combination(text) is None:
        raise argparse.ArgumentTypeError(f"the matrix has no {text!r}")
    return text


def _combination(release: str) -> dict[str, str] | None:
    """The last combination of the matrix that is about a release."""
    distribution, _, version = release.partition(" ")
    found = None
    for combination in read(FILE)["combinations"].values():
        subject = next(name for name in SUBJECTS if name in combination)
        if subject == distribution and combination[subject] == version:
            found = combination
    return found


def _compare(release: str, tests: Path) -> int:
    """How many tests of a release fail with our patches alone."""
    combination = _combination(release)
    with tempfile.TemporaryDirectory() as name:
        suite = _Suite(release.partition(" ")[0], combination, tests, Path(name))
        stock, patched = suite.passed(patches=False), suite.passed(patches=True)
        again = sorted({test.partition("::")[0] for test in stock - patched})
        if again:  # on a busy machine a test may fail once
            environments.say(f"once more: {', '.join(again)}")
            patched |= suite.passed(patches=True, files=again)
    failed = sorted(stock - patched)
    ours = [test for test in failed if test not in KNOWN]
    for test in failed:
        print(f"{release}: {test} fails with our patches: {KNOWN.get(test, 'not known')}")
    print(f"{release}: {len(stock)} pass, {len(failed)} of them not with us, {len(ours)} not known")
    return len(ours) + (not stock)


class _Suite:
    """The tests of one host beside its wheel, in a folder of their own."""

    def __init__(
        self, distribution: str, combination: Mapping[str, str], tests: Path, folder: Path
    ):
        self._folder = folder
        self._place = PLACES[distribution]
        self._python = environments.base(combination["base"])
        wheel = environments.release(distribution, combination[distribution])
        shutil.copytree(wheel, folder, dirs_exist_ok=True)
        shutil.copytree(tests, folder / self._place, dirs_exist_ok=True)
        (folder / self._place / "__init__.py").touch()  # it is not taken for our tests
        shutil.copy(Path(__file__).with_name("conftest_of_suite.py"), folder / "conftest.py")
        (folder / "pytest.ini").write_text("[pytest]\njunit_family = legacy\n")
        self._environ = {
            **environments.environ(combination),
            "HF_HUB_CACHE": str(folder / "hub"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._put_models()

    def _put_models(self) -> None:
        texts = [file.read_text() for file in (self._folder / self._place).rglob("*.py")]
        names = sorted({name for text in texts for name in _MODEL.findall(text)})
        subprocess.run(
            [self._python, "-m", "tests.peers.models", self._folder / "hub", *names],
            cwd=environments.ROOT,
            env={**self._environ, "MLX_GEMMA4_PATCHES": "0"},
            check=True,
        )

    def passed(self, patches: bool, files: list[str] | None = None) -> set[str]:
        """The tests that pass, as ``file::test``."""
        environments.say(f"{self._place} {'with' if patches else 'without'} our patches")
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        subprocess.run(
            [
                *(self._python, "-m", "pytest", "-q", "--tb=no", "-rN", "-p", "no:cacheprovider"),
                *("--continue-on-collection-errors", f"--junitxml={report}"),
                *(files or [self._place]),
            ],
            cwd=self._folder,
            env={
                **self._environ,
                "MLX_GEMMA4_PATCHES": str(int(patches)),
                "PYTHONPATH": f"{self._folder}{os.pathsep}{self._environ['PYTHONPATH']}",
            },
            timeout=HOURS * 3600,
        )
        if not report.is_file():
            raise RuntimeError("pytest ended without a report; what it said is above")
        return _passed(report)


def _passed(report: Path) -> set[str]:
    """The tests in a report of pytest's that neither failed nor were skipped."""
    return {
        f"{case.get('file')}::{case.get('classname').rpartition('.')[2]}::{case.get('name')}"
        for case in xml.parse(report).iter("testcase")
        if not len(case.findall("failure") + case.findall("error") + case.findall("skipped"))
    }


if __name__ == "__main__":
    sys.exit(main())
