"""Where a release's own tests are: in its source distribution, or in a folder given."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.matrix import environments

PLACES = {"mlx-lm": "tests", "mlx-vlm": "mlx_vlm/tests", "vllm-mlx": "tests"}  # in a checkout


class NoTests(Exception):
    """There are no tests of this release to be had; the message says what to do."""


def tests_of(distribution: str, version: str) -> Path:
    """The folder of the tests in the source distribution of a release; downloads it once.

    Raises:
        NoTests: the source distribution has none.
    """
    folder = environments.CACHE / "tests" / f"{distribution}-{version}"
    if not folder.is_dir():
        environments.say(f"downloading the source of {distribution} {version}")
        with tarfile.open(_download(distribution, version)) as archive:
            _extract(archive, PLACES[distribution], folder)
    return _checked(folder, f"the source distribution of {distribution} {version}")


def tests_in(distribution: str, checkout: Path) -> Path:
    """The folder of the tests in a checkout of a host.

    Raises:
        NoTests: there are none in it.
    """
    return _checked(checkout / PLACES[distribution], str(checkout))


def _checked(folder: Path, of: str) -> Path:
    if not list(folder.glob("test_*.py")):
        raise NoTests(f"{of} has no tests; name a checkout that has: --tests FOLDER")
    return folder


def _download(distribution: str, version: str) -> Path:
    archives = environments.CACHE / "sources"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "-qq", "download", "--no-deps"),
            *("--no-binary", distribution, "-d", archives, f"{distribution}=={version}"),
        ],
        check=True,
    )
    name = f"{distribution.replace('-', '_')}-{version}.tar.gz"
    return archives / name


def _extract(archive: tarfile.TarFile, place: str, folder: Path) -> None:
    """The plain files under ``place`` of the archive's one folder."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for member in archive.getmembers():
        path = Path(member.name)
        inside = Path(*path.parts[1:])
        if not member.isfile() or ".." in path.parts or not inside.is_relative_to(place):
            continue
        file = unfinished / inside.relative_to(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(archive.extractfile(member).read())
    unfinished.rename(folder)
