"""Tries patches on code that no measured release has: what they are worth on this machine.

A patch is proved if its fault shows without it and is gone with it, and nothing else changed: see
``harm``. All that can be tried is tried together, since patches lean on each other; one that does
not hold is left out, and what is left is tried again, so that exactly what is kept was measured.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import Any

import mlx_gemma4_patches

from .. import matrix, proofs, registry
from ..patch import State, distribution_of
from . import probes

Found = dict[str, Any]
Fingerprints = dict[str, "str | None"]
NOT_NEEDED = "not needed"  # what a reason begins with where there is no fault
_ON = State.APPLIED.value


class CannotTry(Exception):
    """The patches could not be tried at all; the message says why."""


def prove(say: probes.Say) -> proofs.Proofs:
    """Try every patch of ours that is off because no measured release has the code.

    Args:
        say: see ``probes.run``.

    Raises:
        CannotTry: a process that was to try them ended, or a host cannot be imported.
        matrix.MatrixError: the matrix cannot be read.
    """
    return _Trials(say).result()


class _Trials:
    """The measurements of one run: stock once, patched as often as it takes."""

    def __init__(self, say: probes.Say):
        from . import harm

        self._say = say
        self._harm = harm
        self._hosts = [host for host in sorted(mlx_gemma4_patches.HOSTS) if find_spec(host)]
        self._checks = [name for host in self._hosts for name in harm.of_host(host)]
        self._versions = registry.installed_versions()
        self._left_off: dict[str, str] = {}
        now = self._run("patched", [], proofs.NOTHING)
        self._code: dict[str, Fingerprints] = {}
        for patch_id, code in now["unknown"].items():
            if any(code.values()):
                self._code[patch_id] = code
            else:
                self._left_off[patch_id] = "what it patches is not there, or has no source"
        self._stock: Found = {}
        self._patched: Found = {}

    def result(self) -> proofs.Proofs:
        if self._code:
            self._stock = self._run("stock", [*self._code, *self._checks])["probes"]
        tried = [patch_id for patch_id in self._code if self._shows(patch_id)]
        kept = self._what_holds(tried)
        found = {patch_id: self._proof(patch_id) for patch_id in kept}
        return proofs.Proofs(
            {name: str(version) for name, version in self._versions.items()},
            found,
            {key: why for key, why in self._left_off.items() if key not in found},
        )

    def _shows(self, patch_id: str) -> bool:
        """Whether there is a fault to remove."""
        seen = self._stock[patch_id]
        if "error" in seen:
            self._left_off[patch_id] = f"its probe failed: {seen['error']}"
        elif not seen.get("faulty"):
            self._left_off[patch_id] = f"{NOT_NEEDED}: {_words(seen)}"
        return bool(seen.get("faulty"))

    def _what_holds(self, tried: list[str]) -> list[str]:
        while tried:
            if not (harmed := self._try(tried)):
                held = [patch_id for patch_id in tried if self._holds(patch_id)]
                if held == tried:
                    return tried
                tried = held  # without those that did not hold
            elif len(tried) == 1:
                self._left_off[tried[0]] = harmed
                return []
            else:
                harmless = [one for one in tried if self._is_harmless(one)]
                if harmless == tried:  # each alone, but not together
                    self._left_off |= dict.fromkeys(tried, f"with others: {harmed}")
                    return []
                tried = harmless
        return []

    def _is_harmless(self, patch_id: str) -> bool:
        harmed = self._try([patch_id])
        if harmed:
            self._left_off[patch_id] = harmed
        return not harmed

    def _try(self, ids: Collection[str]) -> str:
        """Measure with these patches on; returns what they harm, in words."""
        trial = proofs.NOTHING._replace(proved={name: self._claim(name) for name in ids})
        run = self._run("patched", [*ids, *self._checks], trial)
        self._patched = run["probes"]
        self._states = {patch["id"]: patch for patch in run["status"]["patches"]}
        harmed = [name for name in self._checks if self._is_harmed(name)]
        return f"it changes what {' and '.join(harmed)} says" if harmed else ""

    def _is_harmed(self, check: str) -> bool:
        before, after = self._stock[check], self._patched[check]
        if "error" in before:
            return False
        return after.get("said") not in (before["said"], self._harm.reference(check))

    def _holds(self, patch_id: str) -> bool:
        state, seen = self._states[patch_id], self._patched[patch_id]
        if state["state"] != _ON:
            self._left_off[patch_id] = f"it could not be applied: {state['reason']}"
        elif seen.get("faulty") is not False:
            self._left_off[patch_id] = f"with it: {_words(seen)}"
        else:
            return True
        return False

    def _claim(self, patch_id: str) -> proofs.Proof:
        row = matrix.load().rows[patch_id]
        others = row.distributions - {row.distribution}
        return proofs.Proof(
            targets=self._code[patch_id],
            beside={name: str(self._versions.get(name)) for name in sorted(others)},
            release=f"{row.distribution} {self._versions.get(row.distribution)}",
            date=datetime.date.today().isoformat(),
            stock=self._stock[patch_id]["measured"],
            patched="",
        )

    def _proof(self, patch_id: str) -> proofs.Proof:
        return self._claim(patch_id)._replace(patched=self._patched[patch_id]["measured"])

    def _run(self, mode: str, ids: Iterable[str], trial: proofs.Proofs | None = None) -> Found:
        run = probes.run(self._hosts, list(ids), self._say, trial=trial, modes=(mode,))[mode]
        if run["ended"]:
            raise CannotTry(run["ended"])
        for host, error in run["hosts"].items():
            if error:
                raise CannotTry(f"{distribution_of(host)} cannot be imported: {error}")
        return run


def _words(seen: dict[str, Any]) -> str:
    return seen.get("measured") or seen.get("not_applicable") or seen["error"]
