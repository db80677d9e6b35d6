"""The engine: a host is seen, patches are selected, verified, applied and recorded.

It is told two things by the finder: a host is about to be imported, and a watched module's body
has run. Hosts load models from several threads, so a record is claimed under a lock and worked on
outside it.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import ModuleType
from typing import Any

from packaging.version import Version

from . import HOSTS, matrix, registry
from .finder import Finder
from .fingerprint import NoSource, first_mismatch
from .patch import State, distribution_of
from .record import Record, why_fine
from .settings import PREFIX, Settings, log
from .surgery import Surgery


class Engine:
    """The records of this process. One is made at the first import of a host."""

    def __init__(self, settings: Settings | None = None):
        self.settings = settings or Settings.read()
        self.records: dict[str, Record] = {}
        self.versions: dict[str, Version | None] = {}
        self._asked_for: set[str] = set()
        self.hosts: list[str] = []
        self.problems: list[str] = []
        self._applied: list[Record] = []  # in order: later wrappers lie on earlier ones
        self.finder = Finder(HOSTS, self.host_seen, self.module_imported)
        self._lock = threading.Lock()
        self._ran: set[str] = set()  # modules the finder reported; the import system is slower
        self._set_up_logging()

    # what the finder calls

    def host_seen(self, host: str) -> None:
        """Make the plan for ``host``, whose package is about to be imported."""
        with self._lock:
            if host in self.hosts:
                return
            self.hosts.append(host)
        self._learn_versions({distribution_of(host)})
        try:
            known = matrix.load(host)
        except matrix.MatrixError as error:
            self._problem(f"no patch is applied: {error}")
            return
        seen = [self._select(point, known) for point in registry.registered(host, self._problem)]
        for record in seen:
            self.records[record.id] = record
            log.debug("%s: %s, %s", record.id, record.state.value, record.reason)
            self.finder.watch(record.modules)
        self._check_ids()
        for record in seen:  # what it waits for may be another host, imported already
            self._settle(record)

    def module_imported(self, module: ModuleType) -> None:
        """Apply what waits for ``module``, whose body has just run (again, after a reload)."""
        self._ran.add(module.__name__)
        for record in list(self.records.values()):
            if module.__name__ in record.modules:
                self._settle(record, reloaded=True)

    def catch_up(self) -> None:
        """Serve the hosts and modules that were imported before us."""
        for host in sorted(HOSTS & set(sys.modules)):
            self.host_seen(host)
        for record in list(self.records.values()):
            self._settle(record)

    # what doctor and the tests call

    def apply(self, patch_id: str) -> None:
        """Apply a patch again after ``undo``."""
        record = self.records[patch_id]
        if record.state is State.DISABLED and record.candidates:
            record.state, record.reason = State.PENDING, "applied again"
            self._settle(record)

    def undo(self, patch_id: str) -> None:
        """Take a patch back until ``apply``."""
        record = self.records[patch_id]
        if record.surgery is None:
            return
        shared, places = [], set(record.surgery.touched())
        for other in self._applied[self._applied.index(record) + 1 :]:
            if places & set(other.surgery.touched()):  # its wrapper lies on ours, or on such a one
                shared.append(other)
                places |= set(other.surgery.touched())
        for other in reversed(shared):
            self._take_back(other)
        self._take_back(record)
        for other in shared:
            self.apply(other.id)

    def _take_back(self, record: Record) -> None:
        left = record.surgery.undo()
        self._applied.remove(record)
        record.surgery = None
        record.state = State.OVERWRITTEN if left else State.DISABLED
        record.reason = f"{', '.join(left)} is no longer ours" if left else "undone"

    def status(self) -> dict[str, Any]:
        """Everything known, ready for JSON."""
        return {
            "hosts": {
                host: str(self.versions.get(distribution_of(host)) or "unknown")
                for host in self.hosts
            },
            "patches": [record.describe() for record in self.records.values()],
            "problems": list(self.problems),
        }

    # selection

    def _select(self, entry_point: registry.EntryPoint, known: matrix.Matrix) -> Record:
        record = Record(entry_point.name, "", State.NOT_NEEDED, "", entry_point)
        row = known.rows.get(record.id)
        if record.id in self.settings.disable:
            record.state, record.reason = State.DISABLED, f"named in {PREFIX}_DISABLE"
            record.title = row.title if row else ""
            return record
        try:
            if row is None:
                row = matrix.parse_row(record.id, registry.load(entry_point).row)
            record.title = row.title
            self._learn_versions(row.distributions)
            self._decide(record, row, known)
        except Exception as error:
            self._fail(record, "could not be loaded", error)
        return record

    def _decide(self, record: Record, row: matrix.Row, known: matrix.Matrix) -> None:
        """Set the state from the versions alone; PENDING where the code has the last word."""
        distribution = row.distribution
        record.version = self.versions.get(distribution)
        release = known.release(distribution, record.version)
        if row.opt_in and row.id not in self.settings.enable:
            record.state = State.DISABLED
            record.reason = f"opt-in: {PREFIX}_ENABLE={row.id} applies it"
        elif release is not None:
            if not row.is_faulty(self.versions):
                record.reason = why_fine(row, self.versions)
            elif (code := row.code_of(release)) is None:
                record.state = State.FINGERPRINT_MISMATCH
                record.reason = f"the matrix has no fingerprints for {distribution} {release}"
            else:
                record.state, record.candidates = State.PENDING, (code,)
                record.release_known = True
        else:
            record.candidates = tuple(c for c in row.code if self._is_faulty_code(row, c))
            record.fine = tuple(c for c in row.code if c not in record.candidates)
            if record.candidates:
                record.state = State.PENDING
            else:
                record.reason = why_fine(row, self.versions)
        if record.state is State.PENDING:
            record.reason = f"waits for the import of {', '.join(sorted(record.modules))}"

    def _learn_versions(self, names: frozenset[str] | set[str]) -> None:
        unknown = names - self._asked_for  # each takes the reading of a long METADATA file
        self._asked_for |= unknown
        self.versions.update(registry.installed_versions(unknown))

    def _is_faulty_code(self, row: matrix.Row, code: matrix.Code) -> bool:
        return all(
            row.is_faulty({**self.versions, row.distribution: Version(release)})
            for release in code.releases
        )

    # verification and application

    def _settle(self, record: Record, reloaded: bool = False) -> None:
        with self._lock:
            record.calls += 1
            if record.calls > 1:  # whoever is at it goes round again
                return
        try:
            while True:
                seen = record.calls
                if reloaded and record.surgery is not None and not record.surgery.is_intact():
                    self._take_back(record)  # the module has run again: its classes are new
                    record.state = State.PENDING
                if record.state is State.PENDING:
                    self._verify_and_apply(record)
                with self._lock:
                    if record.calls == seen:
                        record.calls = 0
                        return
        except BaseException:
            record.calls = 0
            raise

    def _verify_and_apply(self, record: Record) -> None:
        mismatches = []
        for code in record.candidates + record.fine:
            if not all(map(self._is_imported, code.modules)):
                continue
            try:
                mismatch = first_mismatch(code.targets)
            except NoSource as error:
                if record.release_known:
                    self._apply(record, code, State.UNVERIFIED, f"by version alone: {error}")
                else:
                    record.state, record.reason = State.WRONG_VERSION, str(error)
                    self._warn_left_off(record)
                return
            if mismatch:
                mismatches.append(mismatch)
            elif code in record.candidates:
                self._apply(record, code, State.APPLIED, record.why_applied(code))
                return
            else:
                record.state = State.NOT_NEEDED
                record.reason = f"the code is that of {record.releases(code)}, which is fine"
                return
        if len(mismatches) == len(record.candidates + record.fine):
            record.state = State.FINGERPRINT_MISMATCH
            record.reason = record.why_refused(mismatches[0])
            self._warn_left_off(record)

    def _is_imported(self, name: str) -> bool:
        module = sys.modules.get(name)
        if module is None:
            return False
        return name in self._ran or not getattr(module.__spec__, "_initializing", False)

    def _apply(self, record: Record, code: matrix.Code, state: State, reason: str) -> None:
        try:
            patch = registry.load(record.entry_point)
        except Exception as error:
            self._fail(record, "could not be loaded", error)
            return
        surgery = Surgery(record.id, tuple(code.targets))
        try:
            patch.apply(surgery)
        except Exception as error:
            surgery.undo()
            self._fail(record, "could not be applied", error)
            return
        record.surgery, record.state, record.reason = surgery, state, reason
        self._applied.append(record)
        log.info("%s applied: %s", record.id, record.title)

    def _fail(self, record: Record, what: str, error: Exception) -> None:
        record.state = State.FAILED
        record.reason = f"{what}: {type(error).__name__}: {error}"
        if self.settings.strict:
            raise error
        log.warning("mlx-gemma4-patches: %s %s", record.id, record.reason)
        log.debug("traceback of %s", record.id, exc_info=error)

    def _warn_left_off(self, record: Record) -> None:
        log.warning(
            "mlx-gemma4-patches: %s is left off: %s; see python -m mlx_gemma4_patches doctor",
            record.id,
            record.reason,
        )

    def _check_ids(self) -> None:
        named = self.settings.disable | self.settings.enable
        if not named:  # looking through every distribution takes its time
            return
        import difflib

        ids = set(matrix.load().rows) | {entry_point.name for entry_point in registry.registered()}
        for name in sorted(named - ids):
            close = difflib.get_close_matches(name, ids, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self._problem(f"no patch is called {name!r}{hint}")

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)
            log.warning("mlx-gemma4-patches: %s", text)

    def _set_up_logging(self) -> None:
        if self.settings.level:
            log.setLevel(self.settings.level)
            if not log.handlers:
                log.addHandler(logging.StreamHandler())
        for problem in self.settings.problems:
            self._problem(problem)


ENGINE: Engine | None = None  # this process's, from the first import of a host on


def start() -> Finder:
    """Make this process's engine; returns the finder that drives it."""
    global ENGINE
    ENGINE = Engine()
    return ENGINE.finder


def catch_up() -> None:
    """Serve what was imported before ``start``."""
    assert ENGINE is not None
    ENGINE.catch_up()


def status() -> dict[str, Any]:
    """See ``Engine.status``."""
    assert ENGINE is not None
    return ENGINE.status()
