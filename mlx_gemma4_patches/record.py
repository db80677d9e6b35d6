"""What the engine knows of one patch in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import plan, registry
from .patch import State
from .surgery import Surgery


class OneAtATime:
    """Runs a job in one thread at a time, and again for calls that come meanwhile.

    A call that finds the job under way returns at once: nobody waits. Imports are under way then,
    and a thread that waited might be the one that the other waits for.
    """

    def __init__(self, job: Callable[[], None]):
        self._job = job
        self._lock = threading.Lock()
        self._calls = 0

    def __call__(self) -> None:
        with self._lock:
            self._calls += 1
            if self._calls > 1:
                return
        while True:
            served = self._calls
            try:
                self._job()
            except BaseException:
                self._calls = 0
                raise
            with self._lock:
                if self._calls == served:
                    self._calls = 0
                    return


@dataclass
class Record:
    """Where one patch stands in this process, and why."""

    id: str
    entry_point: registry.metadata.EntryPoint
    title: str = ""
    state: State = State.NOT_NEEDED
    reason: str = ""
    situation: plan.Situation | None = None
    modules: frozenset[str] = frozenset()  # that the targets are in
    surgery: Surgery | None = None
    settle: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def host(self) -> str:
        return self.id.partition(".")[0]

    def describe(self) -> dict[str, Any]:
        """As ``status`` shows it, ready for JSON."""
        state, reason, touched = self.state, self.reason, []
        if self.surgery is not None:
            touched = self.surgery.changed_targets()
            others = ", ".join(self.surgery.wrapped_by())
            if replaced := self.surgery.replaced():
                state = State.OVERWRITTEN
                reason = f"{', '.join(replaced)} was replaced after us, by {others or 'a reload'}"
            elif others:
                reason = f"{reason}; wrapped by {others}"
        return {
            "id": self.id,
            "title": self.title,
            "state": state.value,
            "reason": reason,
            "touched": touched,
            "waits_for": sorted(self.modules) if state is State.PENDING else [],
        }
