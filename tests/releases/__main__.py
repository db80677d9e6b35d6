"""The day after: what was published since the matrix was written, measured and told.

Asks the package index through pip for new releases of the hosts, adds them and their combinations
to ``compat_matrix.yaml``, measures, writes evidence and the README's tables, and prints what a
maintainer must look at. A new mlx or transformers is put into the base environment, and the newest
combination of each host is measured again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping

from mlx_gemma4_patches import matrix
from tests.matrix import environments
from tests.matrix.__main__ import FILE
from tests.matrix.file import read, save
from tests.matrix.table import README
from tests.rehearsal.past import measured, rehearse, subject

from . import changes, published

LOOK, USAGE = 1, 2


def main() -> int:
    options = _parser().parse_args()
    data, originals = read(FILE), {file: file.read_bytes() for file in (FILE, README)}
    try:
        for release in options.without:
            published.without(data, release)
        fresh = {
            name: published.new(data["releases"][name], published.versions(name))
            for name in published.HOSTS
        }
        renewed = [] if options.without else _renew_base()
    except ValueError as error:
        print(f"error: {error}")
        return USAGE
    except RuntimeError as error:
        print(f"error: {error}; is there a network?")
        return LOOK
    added = published.add(data, fresh)
    names = [*added, *(n for n in _newest(data) if renewed and n not in added)]
    for text in (*(f"{n} {r}" for n, releases in fresh.items() for r in releases), *renewed):
        print(f"new: {text}", flush=True)
    if not names:
        print("nothing new")
        return 0
    try:
        save(data, FILE)
        return _measured(names, options.tests)
    finally:
        if options.without:  # a rehearsal leaves the files as they were
            for file, content in originals.items():
                file.write_bytes(content)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.releases",
        description=__doc__,
        epilog="Exit codes: 0 nothing is new, or all of it behaves as the matrix says; 1 a "
        "maintainer must look; 2 usage.",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="RELEASE",
        help="rehearse: forget this release of a host, such as 'mlx-vlm 0.7.10', and later ones; "
        "the files are left as they are; may be repeated",
    )
    parser.add_argument(
        "--tests",
        choices=("all", "last", "none"),
        default="last",
        help="the host tests to run, as of python -m tests.matrix",
    )
    return parser


def _renew_base() -> list[str]:
    """Upgrade mlx and transformers in the base of the newest; returns what is new there."""
    python = environments.base("new")
    before = _installed(python)
    if all(published.versions(name)[-1] == version for name, version in before.items()):
        return []
    subprocess.run(
        [python, "-m", "pip", "-qq", "install", "--upgrade", *environments.BASES["new"]], check=True
    )
    return [f"{n} {v}" for n, v in _installed(python).items() if before[n] != v]


def _installed(python: object) -> dict[str, str]:
    code = "from importlib.metadata import version as v; print(v('mlx'), v('transformers'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(("mlx", "transformers"), done.stdout.split(), strict=True))


def _newest(data: Mapping) -> list[str]:
    """The last combination of each host on the base of the newest."""
    last = {subject(c): name for name, c in data["combinations"].items() if c["base"] == "new"}
    return list(last.values())


def _measured(names: list[str], tests: str) -> int:
    command = [sys.executable, "-m", "tests.matrix", "--write", "--tests", tests, *names]
    disagreed = subprocess.run(command, cwd=environments.ROOT).returncode != 0
    for module in ("tests.matrix.table", "tests.rehearsal"):
        write = ["--write"] * (module == "tests.rehearsal")
        subprocess.run([sys.executable, "-m", module, *write], cwd=environments.ROOT)
    matrix.load.cache_clear()
    known = matrix.load()
    told = [line for name in names for line in look_at(known, name)]
    print("\nfor a maintainer to look at:", *(told or ["nothing"]), sep="\n")
    if disagreed:
        print("and the disagreements of the release matrix above")
    return LOOK if told or disagreed else 0


def look_at(known: matrix.Matrix, name: str) -> list[str]:
    """What is different on a combination, with the diff of each changed target."""
    combination = known.combinations[name]
    distribution = subject(combination)
    releases = known.releases[distribution]
    place = releases.index(combination[distribution])
    fates = {o.patch_id: o for o in rehearse(known) if o.combination == name}
    lines = []
    for row in known.rows.values():
        if row.distribution != distribution or not place:
            continue
        before, after = (_targets(row, releases[i]) for i in (place - 1, place))
        outcome = measured(known, row.id, name)
        was = _outcome_of_release(known, row.id, distribution, releases[place - 1])
        fate = fates.get(row.id)
        what = _what(was, outcome, fate.fate if fate else "")
        if what:
            lines.append(f"{row.id} on {name}: {what}")
            folders = [environments.release(distribution, releases[i]) for i in (place - 1, place)]
            differences = [
                changes.difference(*folders, target) for target in changes.between(before, after)
            ]
            lines += filter(None, differences)
    return lines


def _what(was: str | None, outcome: str | None, fate: str) -> str:
    if outcome is None:
        return "the matrix and the measurement disagree"
    if was == "fixed" and outcome != "fixed":
        return "newly fixed: write fixed_in and the end of the faulty releases"
    if was in ("fine", "not_applicable") and outcome == "fixed":
        return "newly faulty"
    if fate in ("proof", "lost"):
        return "newly refused: until this is released, users must prove it"
    if fate == "wrong":
        return "applied though the fault is not there: it depends on more than its targets"
    return ""


def _targets(row: matrix.Row, release: str) -> dict[str, str]:
    variant = row.variant_of(release)
    return dict(variant.targets) if variant else {}


def _outcome_of_release(
    known: matrix.Matrix, patch_id: str, distribution: str, release: str
) -> str | None:
    """On the release's last combination."""
    names = [
        name
        for name, combination in known.combinations.items()
        if subject(combination) == distribution and combination[distribution] == release
    ]
    return measured(known, patch_id, names[-1]) if names else None


if __name__ == "__main__":
    sys.exit(main())
