"""What to do with a patch on this installation. Pure: versions and fingerprints in, decisions out.

A measured release is looked up in the matrix, and its code must be what that release ships. Of any
other release the code decides: if it is the code of a measured release, so is the decision, and if
a patch was proved on this very code on this machine, the patch is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from packaging.version import Version

from .matrix import Matrix, Row, Variant, Versions
from .patch import State
from .proofs import Proof
from .targets import module_of, place_of


class Unseen(Enum):
    """Why a target has no fingerprint."""

    MISSING = "missing"
    NOT_IMPORTED = "not imported"
    NO_SOURCE = "no source"


Look = Callable[[str], "str | Unseen"]  # the fingerprint of a target as it is installed


class Decision(NamedTuple):
    """The state of a patch and why. PENDING: its targets must be looked at, or looked at again."""

    state: State
    reason: str
    mismatch: str | None = None  # the target that ``reason`` says something about
    targets: tuple[str, ...] = ()  # of the code that is installed, where the patch is to be applied


class Situation(NamedTuple):
    """What is known of a patch before its host's code is looked at.

    ``versions`` has the versions of all distributions that the row names: None where a distribution
    is installed and does not say which release it is. ``owner`` is the distribution, with its
    version, that the host's package belongs to, if that is not the host's own. ``proof`` is what
    was proved of the patch on this machine.
    """

    row: Row
    matrix: Matrix
    versions: Versions
    owner: str | None = None
    proof: Proof | None = None

    @property
    def version(self) -> Version | None:
        return self.versions.get(self.row.distribution)

    @property
    def release(self) -> str | None:
        """The measured release that is installed, if it is one."""
        return self.matrix.release(self.row.distribution, self.version)

    @property
    def name(self) -> str:
        """The installed release in words."""
        if self.owner:
            return f"{self.owner} (which has a {self.row.id.partition('.')[0]} of its own)"
        return f"{self.row.distribution} {self.version or 'of unknown version'}"

    def is_faulty(self, release: str) -> bool:
        """Whether a measured release has the fault beside what else is installed."""
        return self.row.is_faulty({**self.versions, self.row.distribution: Version(release)})


_WHY_NEEDED = {"fix": "has this fault", "add": "cannot do this by itself"}


def variants_to_look_for(situation: Situation) -> tuple[Variant, ...]:
    """The code that the decision depends on, newest first; none if the versions suffice."""
    row, release = situation.row, situation.release
    if release is None:
        return row.code[::-1] if any(map(situation.is_faulty, _releases(row))) else ()
    variant = row.variant_of(release) if situation.is_faulty(release) else None
    return () if variant is None else (variant,)


def modules_to_look_in(situation: Situation) -> frozenset[str]:
    """The modules that the decision depends on; none if the versions suffice."""
    variants = variants_to_look_for(situation)
    if not variants:
        return frozenset()
    proof = _proof_that_counts(situation)
    proved = {module_of(t) for t, value in proof.targets.items() if value} if proof else set()
    return frozenset(proved).union(*(variant.modules for variant in variants))


def from_versions(situation: Situation) -> Decision:
    """The decision as far as the versions carry."""
    row, release = situation.row, situation.release
    if modules := modules_to_look_in(situation):
        return Decision(State.PENDING, f"waits for the import of {', '.join(sorted(modules))}")
    nearest = release or _nearest(situation, _measured(situation))
    if situation.is_faulty(nearest):
        reason = f"the matrix has no fingerprints for {row.distribution} {nearest}"
        return Decision(State.FINGERPRINT_MISMATCH, reason)
    if release is None:
        return _as_the_nearest_release(situation)
    return Decision(State.NOT_NEEDED, _why_fine(situation, release))


def from_code(situation: Situation, look: Look) -> Decision:
    """The decision once the code is looked at; PENDING while modules that matter are missing."""
    variants = variants_to_look_for(situation)
    if situation.release is not None:
        return _of_a_measured_release(situation, variants[0], look)
    for variant in variants:
        found = _is_installed(variant, variants, look)
        if found is Unseen.NOT_IMPORTED:
            return from_versions(situation)
        if found is Unseen.NO_SOURCE:
            reason = f"{situation.name} is not in the matrix, and has no source to compare"
            return Decision(State.FINGERPRINT_MISMATCH, reason)
        if found:
            return _of_a_measured_code(situation, variant)
    if proof := _proof_that_counts(situation):
        seen = {target: look(target) for target in proof.targets}
        if Unseen.NOT_IMPORTED in seen.values():
            return from_versions(situation)
        if all(seen[target] == (v or Unseen.MISSING) for target, v in proof.targets.items()):
            there = tuple(target for target, value in proof.targets.items() if value)
            reason = f"proved here on {proof.date}, on {proof.release}"
            return Decision(State.APPLIED, reason, targets=there)
    return _of_an_unknown_code(situation, look)


def _of_a_measured_release(situation: Situation, variant: Variant, look: Look) -> Decision:
    seen = {target: look(target) for target in variant.targets}
    if Unseen.NOT_IMPORTED in seen.values():
        return from_versions(situation)
    for target, expected in variant.targets.items():
        if seen[target] not in (expected, Unseen.NO_SOURCE):
            reason = f"is not as {situation.name} ships it"
            return Decision(State.FINGERPRINT_MISMATCH, reason, target)
    if Unseen.NO_SOURCE in seen.values():
        reason = f"by version alone: {situation.name} is installed without its source"
        return Decision(State.UNVERIFIED, reason, targets=tuple(variant.targets))
    reason = f"{situation.name} {_WHY_NEEDED[situation.row.kind]}"
    return Decision(State.APPLIED, reason, targets=tuple(variant.targets))


def _of_a_measured_code(situation: Situation, variant: Variant) -> Decision:
    release = _nearest(situation, variant.releases)
    if situation.version is None:  # it may be any of them
        faulty = [release for release in variant.releases if situation.is_faulty(release)]
        release = faulty[-1] if faulty else release
    is_whole = all(place_of(target) == target for target in variant.targets)
    what = "the code is that" if is_whole else "what the patch depends on is as that"
    where = f"{what} of {situation.row.distribution} {release}"
    if situation.is_faulty(release):
        reason = f"{where}, which {_WHY_NEEDED[situation.row.kind]}"
        return Decision(State.APPLIED, reason, targets=tuple(variant.targets))
    return Decision(State.NOT_NEEDED, f"{where}: {_why_fine(situation, release)}")


def _of_an_unknown_code(situation: Situation, look: Look) -> Decision:
    row = situation.row
    nearest = _nearest(situation, _measured(situation))
    if situation.version is not None and not situation.is_faulty(nearest):
        return _as_the_nearest_release(situation)
    expected = row.variant_of(nearest) or row.code[-1]
    mismatch = next((t for t, value in expected.targets.items() if look(t) != value), None)
    reason = f"is no code that this patch was written for; {situation.name} is not in the matrix"
    if mismatch is None:  # there is more than there was
        reason = f"the code {reason}"
    return Decision(State.FINGERPRINT_MISMATCH, reason, mismatch)


def _proof_that_counts(situation: Situation) -> Proof | None:
    proof = situation.proof
    return proof if proof and proof.is_beside(situation.versions) else None


def _as_the_nearest_release(situation: Situation) -> Decision:
    nearest = _nearest(situation, _measured(situation))
    where = f"{situation.name} is not in the matrix; {situation.row.distribution} {nearest} is"
    return Decision(State.NOT_NEEDED, f"{where}: {_why_fine(situation, nearest)}")


def _is_installed(variant: Variant, variants: Sequence[Variant], look: Look) -> bool | Unseen:
    """Whether ``variant`` is the code that is installed, or why that cannot be told yet.

    A target that it lacks must be missing, if another variant has it and is the same otherwise.
    """
    expected: dict[str, str | Unseen] = dict(variant.targets)
    for other in variants:
        shared = variant.targets.keys() & other.targets.keys()
        if all(variant.targets[target] == other.targets[target] for target in shared):
            expected |= dict.fromkeys(other.targets.keys() - shared, Unseen.MISSING)
    seen = {target: look(target) for target in expected}
    unclear = (Unseen.NOT_IMPORTED, Unseen.NO_SOURCE)
    if any(seen[target] not in (value, *unclear) for target, value in expected.items()):
        return False
    return next((reason for reason in unclear if reason in seen.values()), True)


def _measured(situation: Situation) -> tuple[str, ...]:
    return situation.matrix.releases.get(situation.row.distribution) or _releases(situation.row)


def _releases(row: Row) -> tuple[str, ...]:
    every = {release for variant in row.code for release in variant.releases}
    return tuple(sorted(every, key=Version))


def _nearest(situation: Situation, releases: Sequence[str]) -> str:
    """The newest of ``releases`` up to the installed version, else the oldest.

    One that is older than Gemma 4 tells nothing of a code, as long as there is another.
    """
    distribution = situation.row.distribution
    telling = [r for r in releases if situation.matrix.has_gemma4(distribution, r)] or releases
    version = situation.version
    older = [r for r in telling if version is None or Version(r) <= version]
    return older[-1] if older else telling[0]


def _why_fine(situation: Situation, release: str) -> str:
    """Why a measured release does not need the patch beside what else is installed."""
    row, versions = situation.row, situation.versions
    missing = sorted(row.distributions - versions.keys())
    if missing:
        return f"{', '.join(missing)} is not installed"
    if not situation.matrix.has_gemma4(row.distribution, release):
        return f"{row.distribution} {release} has no Gemma 4"
    for alternative in row.faulty:
        own = alternative.get(row.distribution)
        if own is None or own.contains(Version(release), prereleases=True):
            others = [
                f"{name} {specifier}, not {versions[name]}"
                for name, specifier in alternative.items()
                if name != row.distribution
                and not specifier.contains(versions[name] or "", prereleases=True)
            ]
            return f"the fault is only there beside {' and '.join(others)}"
    if row.fixed_in:
        return f"fixed upstream in {row.fixed_in}"
    if row.kind == "add":
        return f"it is not made for {row.distribution} {release}"
    return f"{row.distribution} {release} was measured and does not have this fault"
