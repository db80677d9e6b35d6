"""What is decided of releases that were measured, and of releases that were not."""

import re

import pytest
from packaging.version import Version

from mlx_gemma4_patches import matrix, plan
from mlx_gemma4_patches.patch import State
from mlx_gemma4_patches.plan import Unseen
from mlx_gemma4_patches.proofs import Proof

A, B, C = "mlx_lm.a:f", "mlx_lm.b:g", "mlx_lm.c:h"
OLD, NEW = "mlx_lm.old:f", "mlx_lm.new:f"


def situation(faulty, code, version="2.0", owner=None, versions=None, **row):
    """1.0 has no Gemma 4, 1.1 and 2.0 have one."""
    parts = [{"releases": releases, "targets": targets} for releases, targets in code]
    data = {"title": "a fault", "faulty": faulty, "code": parts, **row}
    known = matrix.Matrix(
        releases={"mlx-lm": ("1.0", "1.1", "2.0")},
        gemma4_since={"mlx-lm": "1.1"},
        advice=(),
        rows={},
        combinations={},
        evidence={},
    )
    every = {"mlx-lm": Version(version) if version else None, **(versions or {})}
    return plan.Situation(matrix.parse_row("mlx_lm.fault", data), known, every, owner)


def look(**seen):
    """The code that is there, by the names of targets in this file; the rest is missing."""
    by_target = {globals()[name]: value for name, value in seen.items()}
    return lambda target: by_target.get(target, Unseen.MISSING)


def decide(found, seen):
    first = plan.from_versions(found)
    return plan.from_code(found, seen) if first.state is State.PENDING else first


ALL = [(["1.0", "1.1", "2.0"], {A: "1"})]
GROWN = [(["1.0"], {A: "1"}), (["1.1", "2.0"], {A: "1", B: "2"})]
MOVED = [(["1.1"], {OLD: "1"}), (["2.0"], {NEW: "1"})]
SINCE = [{"mlx-lm": ">=1.1"}]
BEFORE = [{"mlx-lm": ">=1.1,<2.0"}]


@pytest.mark.parametrize(
    ("found", "seen", "state", "words"),
    [
        # the releases of the matrix
        (situation(SINCE, ALL), look(A="1"), "applied", "mlx-lm 2.0 has this fault"),
        (situation(SINCE, ALL, kind="add"), look(A="1"), "applied", "2.0 cannot do this by itself"),
        (situation(SINCE, ALL), look(A="9"), "fingerprint_mismatch", "not as mlx-lm 2.0 ships"),
        (situation(SINCE, ALL), look(), "fingerprint_mismatch", "not as mlx-lm 2.0 ships"),
        (situation(SINCE, ALL), look(A=Unseen.NO_SOURCE), "unverified", "by version alone"),
        (situation(SINCE, ALL), look(A=Unseen.NOT_IMPORTED), "pending", "waits for the import"),
        (situation(SINCE, ALL, "1.0"), look(A="1"), "not_needed", "1.0 has no Gemma 4"),
        (situation(SINCE, []), look(), "fingerprint_mismatch", "no fingerprints"),
        (situation(SINCE, [], "3.0"), look(), "fingerprint_mismatch", "no fingerprints"),
        (
            situation(BEFORE, ALL, fixed_in="mlx-lm 2.0"),
            look(),
            "not_needed",
            "fixed upstream in mlx-lm 2.0",
        ),
        (situation(BEFORE, ALL), look(), "not_needed", "2.0 was measured and does not have"),
        # a release of tomorrow with the code of today
        (situation(SINCE, ALL, "3.0"), look(A="1"), "applied", "the code is that of mlx-lm 2.0"),
        (situation(SINCE, GROWN, "3.0"), look(A="1", B="2"), "applied", "that of mlx-lm 2.0"),
        (situation(BEFORE, ALL, "3.0"), look(A="1"), "not_needed", "is that of mlx-lm 2.0"),
        (situation(SINCE, MOVED, "3.0"), look(NEW="1"), "applied", "that of mlx-lm 2.0"),
        # the smaller part of a code is not the code
        (
            situation(SINCE, GROWN, "3.0"),
            look(A="1", B=Unseen.NOT_IMPORTED),
            "pending",
            "waits for the import",
        ),
        (situation(SINCE, GROWN, "3.0"), look(A="1", B="9"), "fingerprint_mismatch", "3.0 is not"),
        # a code that a release had from which nothing follows, since it is older than Gemma 4
        (situation(SINCE, GROWN, "3.0"), look(A="1"), "not_needed", "1.0 has no Gemma 4"),
        # a release of tomorrow with a code of its own
        (situation(SINCE, ALL, "3.0"), look(A="9"), "fingerprint_mismatch", "3.0 is not in the"),
        (situation(BEFORE, ALL, "3.0"), look(A="9"), "not_needed", "mlx-lm 3.0 is not in the"),
        (situation(BEFORE, ALL, "3.0", fixed_in="mlx-lm 2.0"), look(), "not_needed", "fixed up"),
        # a development release between two, and one from before all
        (situation(BEFORE, ALL, "2.0.dev1"), look(A="1"), "applied", "that of mlx-lm 1.1"),
        (situation(SINCE, ALL, "0.9"), look(A="1"), "applied", "that of mlx-lm 1.1"),
        # of unknown version: it may be any release that has the code
        (situation(BEFORE, ALL, None), look(A="1"), "applied", "that of mlx-lm 1.1"),
        (situation(SINCE, ALL, None), look(A="9"), "fingerprint_mismatch", "of unknown version"),
        (
            situation(SINCE, ALL, None, "other-lm 3"),
            look(A="9"),
            "fingerprint_mismatch",
            "other-lm 3 (which has a mlx_lm of its own) is not in the matrix",
        ),
        (situation(SINCE, ALL, None), look(A=Unseen.NO_SOURCE), "fingerprint_mismatch", "no sou"),
    ],
)
def test_decisions(found, seen, state, words):
    decision = decide(found, seen)
    assert decision.state.value == state
    assert words in decision.reason


BESIDE = [{"mlx-lm": ">=1.1", "mlx": "<1"}]


@pytest.mark.parametrize(
    ("mlx", "version", "state", "words"),
    [
        ("0.5", "2.0", "applied", "has this fault"),
        ("1.5", "2.0", "not_needed", "the fault is only there beside mlx <1, not 1.5"),
        ("1.5", "3.0", "not_needed", "the fault is only there beside mlx <1, not 1.5"),
        ("0.5", "3.0", "applied", "the code is that of mlx-lm 2.0"),
        (None, "2.0", "applied", "has this fault"),  # mlx is there in no known version
        ("absent", "2.0", "not_needed", "mlx is not installed"),
    ],
)
def test_decisions_beside_another_distribution(mlx, version, state, words):
    versions = {} if mlx == "absent" else {"mlx": Version(mlx) if mlx else None}
    decision = decide(situation(BESIDE, ALL, version, versions=versions), look(A="1"))
    assert decision.state.value == state
    assert words in decision.reason


def proof(beside=(), **targets):
    by_target = {globals()[name]: value for name, value in targets.items()}
    return Proof(by_target, dict(beside), "mlx-lm 3.0", "2030-01-02", "wrong", "right")


@pytest.mark.parametrize(
    ("proved", "seen", "state", "words"),
    [
        (proof(A="9"), look(A="9"), "applied", "proved here on 2030-01-02, on mlx-lm 3.0"),
        (proof(A="9"), look(A="8"), "fingerprint_mismatch", "3.0 is not in the matrix"),
        (proof(A="9", B="7"), look(A="9"), "fingerprint_mismatch", "3.0 is not in the matrix"),
        (proof(A="9", B="7"), look(A="9", B=Unseen.NOT_IMPORTED), "pending", "mlx_lm.b"),
        (proof(A="9", B=None), look(A="9"), "applied", "proved here"),
        (proof(A="9", B=None), look(A="9", B="7"), "fingerprint_mismatch", "not in the matrix"),
        # a code that was measured is what it was measured to be
        (proof(A="1"), look(A="1"), "applied", "the code is that of mlx-lm 2.0"),
        # proved beside something else
        (proof({"mlx": "1.0"}, A="9"), look(A="9"), "applied", "proved here"),
        (proof({"mlx": "1.1"}, A="9"), look(A="9"), "fingerprint_mismatch", "not in the matrix"),
        (proof({"more": "1"}, A="9"), look(A="9"), "fingerprint_mismatch", "not in the matrix"),
    ],
)
def test_what_was_proved_here_counts_for_exactly_that_code(proved, seen, state, words):
    found = situation(SINCE, ALL, "3.0", versions={"mlx": Version("1.0")})._replace(proof=proved)
    decision = decide(found, seen)
    assert decision.state.value == state
    assert words in decision.reason
    if state == "applied":
        assert decision.targets == (A,)


def test_of_a_measured_release_no_proof_is_asked():
    found = situation(SINCE, ALL, "2.0")._replace(proof=proof(A="9"))
    assert decide(found, look(A="9")).state is State.FINGERPRINT_MISMATCH


def test_a_patch_that_depends_on_parameters_says_so():
    code = [(["1.1", "2.0"], {f"{A}(first)": "1"})]
    found = decide(situation(SINCE, code, "3.0"), {f"{A}(first)": "1"}.get)
    assert found.state is State.APPLIED
    assert "what the patch depends on is as that of mlx-lm 2.0" in found.reason
    found = decide(situation(SINCE, code, "3.0"), {f"{A}(first)": "2"}.get)
    assert found.state is State.FINGERPRINT_MISMATCH


def test_a_code_that_has_more_than_every_known_one_is_left_alone():
    code = [(["1.0", "1.1"], {A: "1", B: "2"}), (["2.0"], {A: "1"})]
    decision = decide(situation(SINCE, code, "3.0"), look(A="1", B="3"))
    assert decision.state is State.FINGERPRINT_MISMATCH
    assert "the code is no code" in decision.reason


KNOWN = matrix.load()
NEWEST = {name: releases[-1] for name, releases in KNOWN.releases.items()}


def companies(row):
    """What the newest release of the row's host was measured beside."""
    for combination in KNOWN.combinations.values():
        if combination.get(row.distribution) == NEWEST[row.distribution]:
            beside = {name: Version(v) for name, v in combination.items() if name in NEWEST}
            mlx = "0.31.2" if combination["base"] == "old" else "0.32.4"
            yield {**beside, "mlx": Version(mlx), "transformers": Version("5.24")}


def tomorrow(row):
    parts = re.findall(r"\d+", NEWEST[row.distribution])
    return Version(".".join([*parts[:-1], str(int(parts[-1]) + 1)]))


@pytest.mark.parametrize("row", KNOWN.rows.values(), ids=lambda row: row.id)
def test_tomorrows_release_with_todays_code_is_treated_as_todays(row):
    newest = row.variant_of(NEWEST[row.distribution])
    there = dict(newest.targets) if newest else {}
    companions = list(companies(row))
    assert companions
    for versions in companions:
        today = plan.Situation(row, KNOWN, versions)
        later = today._replace(versions={**versions, row.distribution: tomorrow(row)})
        decisions = [decide(s, lambda t: there.get(t, Unseen.MISSING)) for s in (today, later)]
        assert decisions[0].state is decisions[1].state
        assert decisions[0].state in (State.APPLIED, State.NOT_NEEDED)
        assert decisions[0].targets == decisions[1].targets
        if decisions[1].state is State.NOT_NEEDED:
            # nobody has measured it
            assert f"{row.distribution} {tomorrow(row)} was measured" not in decisions[1].reason


@pytest.mark.parametrize("row", KNOWN.rows.values(), ids=lambda row: row.id)
def test_tomorrows_release_without_the_targets_is_quiet_where_todays_is_fine(row):
    for versions in companies(row):
        later = {**versions, row.distribution: tomorrow(row)}
        fine = not row.is_faulty({**versions, row.distribution: Version(NEWEST[row.distribution])})
        decision = decide(plan.Situation(row, KNOWN, later), lambda target: Unseen.MISSING)
        wanted = State.NOT_NEEDED if fine else State.FINGERPRINT_MISMATCH
        assert decision.state is wanted
