"""The engine: does for each patch what ``plan`` decides, and records what became of it.

The finder tells it when a host is about to be imported and when a watched module's body has run.
Hosts import from several threads, so nothing is locked while something is imported or patched.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from packaging.version import Version

from . import HOSTS, _finder, matrix, plan, proofs, registry
from .fingerprint import NoSource, fingerprint, what_stands_at
from .patch import State, distribution_of
from .record import OneAtATime, Record
from .settings import PREFIX, Settings, in_one_line, log
from .surgery import Surgery
from .targets import module_of, place_of

DOCTOR = "python -m mlx_gemma4_patches doctor"
SKIPPED = (Exception, SystemExit)  # what a patch may raise without ending the host


@dataclass(frozen=True)
class SeenHost:
    """A host of this process."""

    name: str
    version: Version | None
    owner: str | None  # the distribution its package is of, if not its own


class Engine:
    """The records of this process. One is made at the first import of a host.

    Args:
        settings: those of the environment if left out.
        watched: names of modules to be told of; grows with the hosts that are seen.
    """

    def __init__(self, settings: Settings | None = None, watched: set[str] | None = None):
        self.settings = settings or Settings.read()
        self.records: dict[str, Record] = {}
        self.hosts: dict[str, SeenHost] = {}
        self.problems: list[str] = []
        self._watched = _finder.names if watched is None else watched
        self._versions: dict[str, Version | None] = {}
        self._looked_up: set[str] = set()  # distributions, installed or not
        self._proofs = proofs.NOTHING
        self._served: dict[str, Any] = {}  # watched modules by name, as they were when served
        self._applied: list[Record] = []  # in order: later wrappers lie on earlier ones
        self._said_what_is_off = False
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        self._set_up_logging()

    # what the finder and activate() call

    def before_import(self, spec: ModuleSpec) -> None:
        """A watched module is about to be made: if it is a host, plan its patches.

        Raises:
            ImportError: a patch imports the host that waits for it; with STRICT any failure.
        """
        host = spec.name.partition(".")[0]
        if host not in HOSTS:
            return
        announced = self._of_thread.__dict__.setdefault("announced", set())
        if host in announced:  # its body would run twice
            raise ImportError(f"{host} is imported by a patch that {host} waits for")
        if host in self.hosts:
            return
        announced.add(host)
        try:
            # a submodule, where a finder in front of ours has found the package
            own = spec if host == spec.name else sys.modules[host].__spec__
            self._guarded(host, self.host_seen, host, _folder(own))
        finally:
            announced.discard(host)

    def after_import(self, name: str, module: Any) -> None:
        """The body of the watched module ``name`` has run; again, after a reload.

        Raises:
            ImportError: with STRICT, any failure.
        """
        self._guarded(name, self._serve, {name: module})
        self._say_what_is_off()

    def serve_imported(self) -> None:
        """Plan and apply for hosts and modules that were imported unseen."""
        for host in sorted(HOSTS & set(sys.modules)):
            spec = getattr(sys.modules[host], "__spec__", None)
            self._guarded(host, self.host_seen, host, _folder(spec))
        self._guarded("a host", self._serve, {})
        self._say_what_is_off()

    def _guarded(self, name: str, hook: Callable[..., None], *arguments: Any) -> None:
        """Call a hook; its errors are logged and never reach the host, unless STRICT is set."""
        try:
            hook(*arguments)
        except SKIPPED as error:
            message = f"mlx-gemma4-patches: {name} runs without patches: {in_one_line(error)}"
            if self.settings.strict:
                raise ImportError(message, name=name) from error
            log.warning(message)

    def host_seen(self, host: str, folder: str | None = None) -> None:
        """Plan the patches of ``host``, whose package lies in ``folder``."""
        with self._lock:
            if host in self.hosts:
                return
            self.hosts[host] = SeenHost(host, None, None)
        try:
            self._plan_all(host, folder)
        except BaseException:
            del self.hosts[host]  # the next import tries again
            raise

    def _plan_all(self, host: str, folder: str | None) -> None:
        found = registry.look_up_host(host, folder)
        self.hosts[host] = SeenHost(host, found.version, found.owner)
        self._looked_up.add(distribution_of(host))
        self._versions[distribution_of(host)] = found.version
        if found.owner:
            log.info("mlx-gemma4-patches: %s here is that of %s", host, found.owner)
        try:
            known = matrix.load(host)
        except matrix.MatrixError as error:
            self._problem(f"no patch is applied: {error}")
            return
        points = registry.registered(host, self._problem, self.settings.third_party)
        if not any(map(registry.is_ours, points)):
            self._problem(
                "no patch of this package is registered, its entry_points.txt is missing or "
                "empty; install mlx-gemma4-patches anew"
            )
        if known.release(distribution_of(host), found.version) is None:
            self._proofs = self._what_was_proved(host)
        seen = [self._plan(point, known) for point in points]
        for record in seen:
            self.records[record.id] = record
            log.debug("%s: %s, %s", record.id, record.state.value, record.reason)
            self._watched.update(record.modules)
        self._check_ids()
        for record in seen:  # what it waits for may be another host's, imported already
            record.settle()

    def _serve(self, reported: dict[str, Any]) -> None:
        """Settle the patches that wait for modules which have been imported since the last time.

        Not only those reported: finders in front of ours may have hidden others from us.
        """
        there = {n: m for n, m in self._in_sys_modules().items() if not _is_running(m)} | reported
        new = {n for n, m in there.items() if n in reported or self._served.get(n) is not m}
        self._served |= there
        for record in list(self.records.values()):
            if record.modules & new:
                record.settle()

    def _in_sys_modules(self) -> dict[str, Any]:
        """The watched modules that are there; other threads may import meanwhile."""
        found = {name: sys.modules.get(name) for name in tuple(self._watched)}
        return {name: module for name, module in found.items() if module is not None}

    # what doctor and the tests call

    def apply(self, patch_id: str) -> None:
        """Apply a patch again after ``undo``."""
        record = self.records[patch_id]
        if record.state is State.DISABLED and record.modules:
            record.state, record.reason = State.PENDING, "applied again"
            record.settle()

    def undo(self, patch_id: str) -> None:
        """Take a patch back until ``apply``."""
        record = self.records[patch_id]
        if record.surgery is None:
            return
        above, changed = [], record.surgery.changed_places()
        for other in self._applied[self._applied.index(record) + 1 :]:
            places = other.surgery.changed_places() if other.surgery else set()
            if changed & places:  # its wrapper lies on ours, or on such a one
                above.append(other)
                changed |= places
        for other in reversed(above):
            self._take_back(other)
        self._take_back(record)
        for other in above:
            self.apply(other.id)

    def _take_back(self, record: Record) -> None:
        assert record.surgery is not None
        left = record.surgery.undo()
        self._applied.remove(record)
        record.surgery = None
        record.state = State.OVERWRITTEN if left else State.DISABLED
        record.reason = f"{', '.join(left)} is no longer ours" if left else "undone"

    def status(self) -> dict[str, Any]:
        """Everything known, ready for JSON."""
        self.serve_imported()
        patches = [record.describe() for record in self.records.values()]
        problems = list(self.problems)
        if _finder not in sys.meta_path:
            problems.append(
                "the import hook was removed from sys.meta_path: hosts that are imported from now "
                "on run without patches; call mlx_gemma4_patches.activate() again"
            )
        is_quiet = not any(map(_is_running, self._in_sys_modules().values()))
        for patch in patches:
            if patch["state"] == State.OVERWRITTEN.value:
                self._warn_once(f"{patch['id']} is gone: {patch['reason']}")
            elif (
                patch["state"] == State.PENDING.value
                and is_quiet
                and all(name in self._served for name in patch["waits_for"])
            ):
                problems.append(f"{patch['id']} still waits, though all it waits for is imported")
        return {
            "hosts": {host.name: str(host.version or "unknown") for host in self.hosts.values()},
            "owners": {host.name: host.owner for host in self.hosts.values() if host.owner},
            "patches": patches,
            "problems": problems,
        }

    # planning

    def _what_was_proved(self, host: str) -> proofs.Proofs:
        found = proofs.read(self._problem)
        if not self.settings.prove:
            return found
        names = registry.DISTRIBUTIONS
        versions = {name: str(v) for name, v in registry.installed_versions(names).items()}
        if found.versions == versions:
            return found
        release = f"{distribution_of(host)} {self.hosts[host].version or 'of unknown version'}"
        log.warning(
            "mlx-gemma4-patches: %s is not in the matrix; proving its patches on this machine, "
            "once, which may take minutes",
            release,
        )
        import subprocess

        done = subprocess.run(
            [sys.executable, "-m", __package__, "prove"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, f"{PREFIX}_PROVE": "0"},
        )
        if done.returncode > 1:
            self._problem(f"prove failed: {' '.join(done.stderr.split()[-30:])}")
        return proofs.read(self._problem)

    def _plan(self, entry_point: registry.metadata.EntryPoint, known: matrix.Matrix) -> Record:
        record = Record(entry_point.name, entry_point)
        record.settle = OneAtATime(functools.partial(self._settle, record))
        row = known.rows.get(record.id) if registry.is_ours(entry_point) else None
        if record.id in self.settings.disable:
            record.state, record.reason = State.DISABLED, f"named in {PREFIX}_DISABLE"
            record.title = row.title if row else ""
            return record
        try:
            if row is None:
                row = matrix.parse_row(record.id, registry.load(entry_point).row)
            record.title = row.title
            if row.opt_in and row.id not in self.settings.enable:
                record.state = State.DISABLED
                record.reason = f"opt-in: {PREFIX}_ENABLE={row.id} applies it"
                return record
            self._look_up_versions(row.distributions)
            owner = self.hosts[record.host].owner
            proof = self._proofs.proved.get(record.id) if registry.is_ours(entry_point) else None
            situation = plan.Situation(row, known, dict(self._versions), owner, proof)
            record.situation = situation
            record.modules = plan.modules_to_look_in(situation)
            self._record(record, plan.from_versions(situation))
        except SKIPPED as error:
            self._fail(record, "could not be loaded", error)
        return record

    def _look_up_versions(self, names: frozenset[str]) -> None:
        unknown = names - self._looked_up  # each takes the reading of a long METADATA file
        self._looked_up |= unknown
        self._versions.update(registry.installed_versions(unknown))

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

    # verification and application

    def _settle(self, record: Record) -> None:
        """Decide by the code and act on it, as far as the modules are there."""
        if record.surgery is not None and record.surgery.was_reloaded():
            record.surgery.forget_replaced()
            self.undo(record.id)
            record.state = State.PENDING
        if record.state is not State.PENDING or record.situation is None:
            return
        decision = plan.from_code(record.situation, self.look)
        if decision.state.is_on:
            self._apply(record, decision)
        else:
            self._record(record, decision)

    def _record(self, record: Record, decision: plan.Decision) -> None:
        record.state, record.reason = decision.state, decision.reason
        if decision.mismatch:
            record.reason = f"{what_stands_at(decision.mismatch)} {decision.reason}"
        if decision.state is State.FINGERPRINT_MISMATCH:
            log.info("mlx-gemma4-patches: %s is left off: %s", record.id, record.reason)

    def look(self, target: str) -> str | plan.Unseen:
        """The fingerprint of a target, or why there is none."""
        name = module_of(target)
        if name not in sys.modules:
            return plan.Unseen.NOT_IMPORTED if _find(name) else plan.Unseen.MISSING
        # the finder reports a module before the import system has done with it
        if _is_running(sys.modules[name]) and self._served.get(name) is not sys.modules[name]:
            return plan.Unseen.NOT_IMPORTED
        try:
            return fingerprint(target, may_import=False)
        except NoSource:
            return plan.Unseen.NO_SOURCE
        except (ImportError, AttributeError):
            return plan.Unseen.MISSING

    def _apply(self, record: Record, decision: plan.Decision) -> None:
        try:
            patch = registry.load(record.entry_point)
        except SKIPPED as error:
            self._fail(record, "could not be loaded", error)
            return
        surgery = Surgery(record.id, tuple(map(place_of, decision.targets)))
        try:
            patch.apply(surgery)
        except BaseException as error:
            surgery.undo()
            if not isinstance(error, SKIPPED):
                raise
            self._fail(record, "could not be applied", error)
            return
        record.surgery, record.state, record.reason = surgery, decision.state, decision.reason
        self._applied.append(record)
        log.info("%s applied: %s", record.id, record.title)

    def _fail(self, record: Record, what: str, error: BaseException) -> None:
        record.state = State.FAILED
        record.reason = f"{what}: {in_one_line(error)}"
        if self.settings.strict:
            raise error
        log.warning("mlx-gemma4-patches: %s %s", record.id, record.reason)
        log.debug("traceback of %s", record.id, exc_info=error)

    # what the user is told

    def _say_what_is_off(self) -> None:
        """Warn once, in one line, as soon as no import of a watched module is under way."""
        records = list(self.records.values())
        off = [r for r in records if r.state is State.FINGERPRINT_MISMATCH]
        off = [record for record in off if not self.hosts[record.host].owner]
        if self._said_what_is_off or not off:
            return
        if any(map(_is_running, self._in_sys_modules().values())):
            return
        self._said_what_is_off = True
        counts = []
        for host in dict.fromkeys(record.host for record in off):
            wanted = [
                record
                for record in records
                if record.host == host and record.state not in (State.NOT_NEEDED, State.DISABLED)
            ]
            count = sum(record.host == host for record in off)
            release = f"{distribution_of(host)} {self.hosts[host].version or 'of unknown version'}"
            counts.append(f"{count} of {len(wanted)} patches are off on {release}")
        log.warning(
            "mlx-gemma4-patches: %s, whose code they do not know; users may see: %s; see %s, and "
            "%s tries them on this machine",
            " and ".join(counts),
            off[0].title,
            DOCTOR,
            proofs.COMMAND,
        )

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("mlx-gemma4-patches: %s", text)

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


def _folder(spec: ModuleSpec | None) -> str | None:
    places = spec.submodule_search_locations if spec else None
    return next(iter(places), None) if places else None


def _is_running(module: Any) -> bool:
    """Whether the body of a module is being executed."""
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True


def _find(name: str) -> ModuleSpec | None:
    """The spec of a module that could be imported, found without importing anything."""
    parent = name.rpartition(".")[0]
    if not parent:
        return PathFinder.find_spec(name)
    if isinstance(sys.modules.get(parent), ModuleType):
        path = getattr(sys.modules[parent], "__path__", None)
    else:
        spec = _find(parent)
        path = spec.submodule_search_locations if spec else None
    return PathFinder.find_spec(name, path) if path else None


ENGINE: Engine | None = None  # this process's, from the first import of a host on
_making = threading.Lock()


def of_this_process() -> Engine:
    """This process's engine; made, and shown what is imported already, at the first call."""
    global ENGINE
    if ENGINE is None:
        with _making:
            if ENGINE is not None:
                return ENGINE
            ENGINE = Engine()
        ENGINE.serve_imported()
    return ENGINE
