"""The matrix as it was before a release came out, and what today's patches would have done then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from packaging.version import Version

from mlx_gemma4_patches import matrix, plan
from mlx_gemma4_patches.patch import State
from mlx_gemma4_patches.targets import place_of
from tests.matrix.__main__ import SUBJECTS

# what the two bases have beside the hosts; conditions of rows name no others
BASES = {
    "old": {"mlx": Version("0.31.2"), "transformers": Version("5.9")},
    "new": {"mlx": Version("0.32.4"), "transformers": Version("5.24")},
}


class Outcome(NamedTuple):
    """What became of one patch on one release that nobody had measured yet."""

    combination: str
    patch_id: str
    fate: str  # of FATES
    reason: str


# kept at import, by the code that it was written for or by the parameters of what it surrounds;
# kept by `prove`; lost; applied where there is no fault; a fault that no earlier release had
FATES = ("code", "parameters", "proof", "lost", "wrong", "new")


def subject(combination: Mapping[str, str]) -> str:
    """The distribution that a combination is about."""
    return next(name for name in SUBJECTS if name in combination)


def before(known: matrix.Matrix, distribution: str, release: str) -> matrix.Matrix:
    """``known`` without ``release`` of a host and all later ones."""

    def earlier(releases: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(r for r in releases if Version(r) < Version(release))

    rows = {}
    for row in known.rows.values():
        if row.distribution == distribution:
            code = [variant._replace(releases=earlier(variant.releases)) for variant in row.code]
            row = row._replace(code=tuple(variant for variant in code if variant.releases))
        rows[row.id] = row
    releases = {**known.releases, distribution: earlier(known.releases[distribution])}
    return known._replace(releases=releases, rows=rows)


def rehearse(known: matrix.Matrix) -> Iterator[Outcome]:
    """Every patch on every release but the first, in each combination that it was measured on."""
    for name, combination in known.combinations.items():
        distribution = subject(combination)
        past = before(known, distribution, combination[distribution])
        if not past.releases[distribution]:
            continue
        for row in known.rows.values():
            if row.distribution == distribution:
                outcome = _outcome(known, past, name, row)
                if outcome is not None:
                    yield outcome


def _outcome(known: matrix.Matrix, past: matrix.Matrix, name: str, row: matrix.Row):
    combination = known.combinations[name]
    versions = {n: Version(v) for n, v in combination.items() if n != "base"}
    versions |= BASES[combination["base"]]
    there = _code(row, combination[row.distribution])
    situation = plan.Situation(past.rows[row.id], past, versions)
    decision = plan.from_versions(situation)
    if decision.state is State.PENDING:
        decision = plan.from_code(situation, lambda t: there.get(t, plan.Unseen.MISSING))
    found = measured(known, row.id, name)
    if found != "fixed":
        is_fine = found == "fine" or (found and not row.is_faulty(versions))
        wrong = is_fine and decision.state is State.APPLIED
        return Outcome(name, row.id, "wrong", decision.reason) if wrong else None
    if decision.state is State.APPLIED:
        loose = any(place_of(target) != target for target in decision.targets)
        return Outcome(name, row.id, "parameters" if loose else "code", decision.reason)
    if decision.state is State.NOT_NEEDED or not past.rows[row.id].code:
        return Outcome(name, row.id, "new", decision.reason)
    # the release matrix measures what `prove` does: the fault shows, and with the patch it is gone
    fate = "proof" if there else "lost"
    return Outcome(name, row.id, fate, f"{decision.mismatch or ''} {decision.reason}".strip())


def _code(row: matrix.Row, release: str) -> Mapping[str, str]:
    variant = row.variant_of(release)
    return variant.targets if variant else {}


def measured(known: matrix.Matrix, patch_id: str, name: str) -> str | None:
    """The outcome that the release matrix has for a patch on a combination."""
    evidence = known.evidence.get(patch_id, matrix.Evidence({}, {}))
    return next((o for o in matrix.OUTCOMES if name in evidence.outcomes.get(o, ())), None)
