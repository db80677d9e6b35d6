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
from .conftest_of_suite import NO_END
from .known import KNOWN
from .sources import PLACES

RELEASES = (
    *("mlx-lm 0.31.3", "mlx-lm 0.32.2", "mlx-vlm 0.6.9", "mlx-vlm 0.7.10"),
    *("vllm-mlx 0.4.1", "vllm-mlx 0.6.0"),
)
HOURS = 2  # a suite that takes longer hangs
_MODEL = re.compile(r"""["']((?:mlx-community|google)/[\w.-]+)["']""")


class Broken(Exception):
    """A run that says nothing of the tests in it."""


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
        except (sources.NoTests, Broken) as error:
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
        stock, patched = suite.run(patches=False), suite.run(patches=True)
        again = _passed(stock) - _passed(patched)
        if again:  # on a busy machine a test may fail once
            files = sorted({test.partition("::")[0] for test in again})
            environments.say(f"once more: {', '.join(files)}")
            patched |= {
                test: said
                for test, said in suite.run(patches=True, files=files).items()
                if test in again
            }
    failed = sorted(_passed(stock) - _passed(patched))
    ours = [test for test in failed if test not in KNOWN]
    for test in failed:
        said = patched.get(test, "it is not run").partition("\n")[0]
        print(f"{release}: {test} fails with our patches: {KNOWN.get(test, f'not known: {said}')}")
    for test in sorted(test for test, said in stock.items() if NO_END in said):
        print(f"{release}: {test} is not compared: without our patches {stock[test]}")
    passed = len(_passed(stock))
    print(
        f"{release}: {passed} of {len(stock)} pass, {len(failed)} of them not with us, "
        f"{len(ours)} not known"
    )
    return len(ours) + (not passed)


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

    def run(self, patches: bool, files: list[str] | None = None) -> dict[str, str]:
        """What is said of each test, as ``file::class::test``: nothing of those that pass.

        Raises:
            Broken: pytest did not get to its end.
        """
        how = f"{self._place} {'with' if patches else 'without'} our patches"
        environments.say(how)
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        try:
            done = subprocess.run(
                [
                    *(self._python, "-m", "pytest", "-q", "--tb=no", "-rN"),
                    *("-p", "no:cacheprovider", "--disable-warnings"),
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
        except subprocess.TimeoutExpired:
            raise Broken(f"{how}: no end after {HOURS} h") from None
        if done.returncode not in (0, 1):  # neither all passed nor some failed
            raise Broken(f"{how}: pytest ended with {done.returncode}; what it said is above")
        return _said(report)


def _said(report: Path) -> dict[str, str]:
    """Of each test in a report of pytest's, why it did not pass; nothing where it did."""
    said: dict[str, str] = {}
    for case in xml.parse(report).iter("testcase"):  # a test with parts has a case for each
        test = f"{case.get('file')}::{case.get('classname').rpartition('.')[2]}::{case.get('name')}"
        wrong = [e for e in case if e.tag in ("failure", "error", "skipped")]
        said[test] = said.get(test, "") + " ".join(e.get("message") or e.tag for e in wrong)
    return said


def _passed(said: dict[str, str]) -> set[str]:
    return {test for test, why in said.items() if not why}


if __name__ == "__main__":
    sys.exit(main())
