"""What the engine knows of one patch in this process, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from packaging.version import Version

from . import matrix, registry
from .patch import State, distribution_of
from .surgery import Surgery


@dataclass
class Record:
    """Where one patch stands in this process, and why."""

    id: str
    title: str
    state: State
    reason: str
    entry_point: registry.EntryPoint
    version: Version | None = None  # of the host
    release_known: bool = False
    candidates: tuple[matrix.Code, ...] = ()  # code the patch was written for
    fine: tuple[matrix.Code, ...] = ()  # code known to be without the fault
    surgery: Surgery | None = None
    calls: int = field(default=0, repr=False)  # to settle it, under way or waiting for it

    @property
    def distribution(self) -> str:
        return distribution_of(self.id.partition(".")[0])

    @property
    def modules(self) -> frozenset[str]:
        return frozenset().union(*(code.modules for code in self.candidates + self.fine))

    def describe(self) -> dict[str, Any]:
        """As ``status`` shows it, ready for JSON."""
        state, reason, touched = self.state, self.reason, []
        if self.surgery is not None:
            touched = self.surgery.touched()
            if not self.surgery.is_intact():
                state, reason = State.OVERWRITTEN, "something else replaced it after us"
        return {
            "id": self.id,
            "title": self.title,
            "state": state.value,
            "reason": reason,
            "touched": touched,
            "waits_for": sorted(self.modules) if state is State.PENDING else [],
        }

    def why_applied(self, code: matrix.Code) -> str:
        if self.release_known:
            return f"{self.distribution} {self.version} has this fault"
        return f"the code is that of {self.releases(code)}, which has this fault"

    def why_refused(self, mismatch: str) -> str:
        if self.release_known:
            return f"{mismatch} is not as {self.distribution} {self.version} ships it"
        return (
            f"{self.distribution} {self.version or 'of unknown version'} is not in the matrix, and "
            f"its {mismatch} is no code this patch was written for"
        )

    def releases(self, code: matrix.Code) -> str:
        return f"{self.distribution} {', '.join(code.releases)}"


def why_fine(row: matrix.Row, versions: matrix.Versions) -> str:
    """Why these versions do not need the patch of ``row``."""
    missing = sorted(row.distributions - set(versions))
    if missing:
        return f"{', '.join(missing)} is not installed"
    together = ", ".join(f"{name} {versions[name]}" for name in sorted(row.distributions))
    return f"{together}: without this fault"
