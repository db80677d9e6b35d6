"""Rehearses the day after on the past: each release as if nobody had measured it yet.

For each release of each host, the matrix forgets it and all later ones, and today's patches meet
its code. What they would have done is compared with what the matrix measured since. Fingerprints
and evidence are those of ``compat_matrix.yaml``: this takes seconds and no host.

``--write`` puts the sums into the README. ``--prove RELEASE`` runs the command on one release.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Iterable

from mlx_gemma4_patches import matrix
from tests.matrix.environments import ROOT

from .past import FATES, Outcome, rehearse, subject

README = ROOT / "README.md"
START, END = "<!-- the rehearsal -->\n", "<!-- end of the rehearsal -->\n"
KEPT = ("code", "parameters", "proof")
AIM = 0.95


def main() -> int:
    options = _parser().parse_args()
    if options.prove:
        from . import proving

        return proving.main(options.prove)
    known = matrix.load()
    outcomes = list(rehearse(known))
    for name in known.combinations:
        mine = [outcome for outcome in outcomes if outcome.combination == name]
        if mine:
            counts = collections.Counter(outcome.fate for outcome in mine)
            print(f"{name}: {', '.join(f'{counts[f]} {f}' for f in FATES if counts[f])}")
        for outcome in mine:
            if outcome.fate in ("lost", "wrong"):
                print(f"  {outcome.fate}: {outcome.patch_id}: {outcome.reason}")
    print(table(outcomes, known))
    if options.write:
        text = README.read_text(encoding="utf-8")
        README.write_text(written(text, outcomes, known), encoding="utf-8")
    counts = collections.Counter(outcome.fate for outcome in outcomes)
    return 1 if counts["wrong"] or _share(counts) < AIM else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rehearsal",
        description=__doc__,
        epilog="Exit code 1: a patch would have been wrong, or fewer than 95 % kept.",
    )
    parser.add_argument("--write", action="store_true", help="write the table into the README")
    parser.add_argument(
        "--prove", metavar="RELEASE", help='run `prove` on a release, such as "mlx-vlm 0.7.1"'
    )
    return parser


def table(outcomes: Iterable[Outcome], known: matrix.Matrix) -> str:
    """One Markdown row for each host, and the sum."""
    rows: dict[str, collections.Counter] = {}
    releases = collections.defaultdict(set)
    for outcome in outcomes:
        combination = known.combinations[outcome.combination]
        distribution = subject(combination)
        rows.setdefault(distribution, collections.Counter())[outcome.fate] += 1
        releases[distribution].add(combination[distribution])
    lines = [
        "| host | releases | patches needed | by code | by parameters | by proof | lost | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows["all"] = sum(rows.values(), collections.Counter())
    releases["all"] = set().union(*({(d, r) for r in rs} for d, rs in releases.items()))
    for distribution, counts in rows.items():
        needed = sum(counts[fate] for fate in (*KEPT, "lost"))
        cells = [distribution, len(releases[distribution]), needed]
        cells += [counts[fate] for fate in (*KEPT, "lost", "wrong")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def written(text: str, outcomes: Iterable[Outcome], known: matrix.Matrix) -> str:
    """``text``, the README, with the table as it is now."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{table(outcomes, known)}{END}{after}"


def _share(counts: collections.Counter) -> float:
    kept = sum(counts[fate] for fate in KEPT)
    return kept / max(1, kept + counts["lost"])


if __name__ == "__main__":
    sys.exit(main())
