"""Lays the four places of a new patch: its file, its row, its entry point, its test.

``python -m tests.new mlx_lm.some_fault``; what it lays does not pass before it is filled in.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mlx_gemma4_patches import HOSTS, matrix
from mlx_gemma4_patches.patch import distribution_of

from .matrix.environments import ROOT
from .matrix.file import read, save

ENTRY_POINTS = '[project.entry-points."mlx_gemma4_patches.patches"]\n'

PATCH = '''\
"""{title}.

What the user sees: ...

Why: ...

The fix: ... It can be deleted when ...

Upstream: not reported yet.
"""

from __future__ import annotations

from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "{target}"


def probe() -> Finding:
    raise NotImplementedError("show the fault on tiny random objects")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _fixed)


def _fixed(original):
    raise NotImplementedError("return a function with the parameters of the original")


PATCH = Patch(id="{id}", targets=(_TARGET,), apply=apply, probe=probe)
'''

TEST = '''\
"""{id}: {title}."""

from __future__ import annotations

from typing import Any

from tests.hosts.contract import PatchContract


class Test{name}(PatchContract):
    id = "{id}"

    def untouched(self) -> Any:
        raise NotImplementedError("return numbers from a path where nothing is wrong")
'''


class Refused(Exception):
    """Nothing is laid; the message says why."""


def lay(root: Path, patch_id: str, title: str, target: str, faulty: str) -> list[Path]:
    """Lay what is missing of a patch.

    Args:
        root: of the repository.
        patch_id: ``host.fault``.
        title: what users see without the patch, in a line.
        target: ``module:path``, the place whose source decides.
        faulty: a PEP 440 specifier of the host's releases.

    Returns:
        The files that were written.

    Raises:
        Refused: the id is none, or everything is there.
    """
    host, _, fault = patch_id.partition(".")
    if host not in HOSTS or not re.fullmatch("[a-z][a-z0-9_]*", fault):
        hosts = ", ".join(sorted(HOSTS))
        raise Refused(f"{patch_id!r} is not host.fault, in small letters, with a host of {hosts}")
    try:
        SpecifierSet(faulty)
    except InvalidSpecifier as error:
        raise Refused(f"--faulty: {error}") from None
    if not all(target.partition(":")):
        raise Refused(f"--target: {target!r} is not of the form module:path")
    words = {"id": patch_id, "title": title, "target": target, "name": _camel(fault)}
    package = root / "mlx_gemma4_patches" / "patches" / host
    written = [
        *_write(package / f"{fault}.py", PATCH.format(**words)),
        *_write(root / "tests" / "hosts" / f"test_{host}_{fault}.py", TEST.format(**words)),
        *_add_row(root / matrix.FILE, patch_id, title, faulty),
        *_add_entry_point(root / "pyproject.toml", patch_id),
    ]
    if not written:
        raise Refused(f"{patch_id} has its file, row, entry point and test already")
    return written


def _camel(fault: str) -> str:
    return "".join(word.capitalize() for word in fault.split("_"))


def _write(file: Path, text: str) -> list[Path]:
    if file.exists():
        return []
    file.write_text(text, encoding="utf-8")
    return [file]


def _add_row(file: Path, patch_id: str, title: str, faulty: str) -> list[Path]:
    data = read(file)
    if patch_id in data["patches"]:
        return []
    distribution = distribution_of(patch_id.partition(".")[0])
    data["patches"][patch_id] = {
        "title": title,
        "faulty": [{distribution: faulty}],
        "fixed_in": None,
        "upstream": [],
    }
    save(data, file)
    return [file]


def _add_entry_point(file: Path, patch_id: str) -> list[Path]:
    before, start, rest = file.read_text(encoding="utf-8").partition(ENTRY_POINTS)
    table, end, after = rest.partition("\n\n")
    lines = table.splitlines()
    line = f'"{patch_id}" = "mlx_gemma4_patches.patches.{patch_id}:PATCH"'
    if line in lines:
        return []
    table = "\n".join(sorted([*lines, line]))
    file.write_text(f"{before}{start}{table}{end}{after}", encoding="utf-8")
    return [file]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.new", description=__doc__)
    parser.add_argument("id", help="host.fault, such as mlx_lm.some_fault")
    parser.add_argument("--title", default="...", help="what users see without it, in a line")
    parser.add_argument("--target", help="module:path, the place whose source decides")
    parser.add_argument("--faulty", default=">=0", help="the host's releases, as in PEP 440")
    options = parser.parse_args(arguments)
    host = options.id.partition(".")[0]
    target = options.target or f"{host}.module:Class.method"
    try:
        written = lay(ROOT, options.id, options.title, target, options.faulty)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*(f"laid in {file.relative_to(ROOT)}" for file in written), sep="\n")
    print(
        f"""
Fill in file, test and row (its keys: README.md, "Write a patch"), then
  python -m pip install --no-deps --no-build-isolation -e .   registers the entry point
  python -m tests.matrix --write --tests none "{distribution_of(host)}"   measures all releases
  python -m tests.matrix.table   writes PATCHES.md
  python -m pytest tests/hosts/test_{options.id.replace(".", "_")}.py tests/unit/test_readme.py"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
