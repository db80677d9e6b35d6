"""The engine on a small host of our own, written to a folder and really imported."""

import functools
import importlib
import importlib.machinery
import linecache
import subprocess
import sys
import textwrap
from unittest import mock

import pytest
from packaging.version import Version

import mlx_gemma4_patches
from mlx_gemma4_patches import engine, matrix, proofs, registry
from mlx_gemma4_patches.fingerprint import fingerprint
from mlx_gemma4_patches.patch import Finding, Patch, State
from mlx_gemma4_patches.record import OneAtATime
from mlx_gemma4_patches.settings import Settings

SOURCE = """
def double(x):
    return 2 * x + 1

class Cache:
    @classmethod
    def make(cls, n):
        return [cls, n]

    @staticmethod
    def add(a, b):
        return a - b
"""
USER = "from mlx_lm.core import double\n"
TARGET = "mlx_lm.core:double"
ID = "mlx_lm.double"


class Point:
    """An entry point that needs no installation; ours unless it is of another package."""

    def __init__(self, patch, name=None, package="mlx_gemma4_patches.patches"):
        self.name = name or patch.id
        self.value = f"{package}.{self.name}:{id(patch)}"
        self._patch = patch

    def load(self):
        if isinstance(self._patch, BaseException):
            raise self._patch
        return self._patch


def make_patch(apply=None, targets=(TARGET,), **changes):
    def wrap(surgery):
        surgery.wrap(TARGET, lambda original: lambda x: original(x) - 1)

    fields = dict(id=ID, targets=targets, apply=apply or wrap, probe=lambda: Finding(False, ""))
    return Patch(**{**fields, **changes})


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host of release 1.0.0 with one wrong function; returns its folder."""
    package = tmp_path / "mlx_lm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text(SOURCE)
    (package / "user.py").write_text(USER)
    monkeypatch.syspath_prepend(tmp_path)
    # the engine of this process has the real host's patches, and may not see this one
    monkeypatch.setattr(mlx_gemma4_patches._finder, "names", set())
    monkeypatch.setattr(engine, "ENGINE", None)
    real = taken_out()
    yield package
    taken_out()
    sys.modules.update(real)


def taken_out():
    """The modules of the hosts, which are imported no more."""
    names = [name for name in sys.modules if name.partition(".")[0] in mlx_gemma4_patches.HOSTS]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def run(host, monkeypatch):
    """Starts an engine for the host with given patches, version and settings."""

    def start(
        *patches,
        version="1.0.0",
        owner=None,
        settings=None,
        row=None,
        code=None,
        imported=True,
    ):
        importlib.import_module("mlx_lm.core")
        prints = {target: fingerprint(target) for target in (code or (TARGET,))}
        known = matrix.Matrix(
            releases={"mlx-lm": ("1.0.0", "1.1.0")},
            gemma4_since={},
            advice=(),
            combinations={},
            evidence={},
            rows={
                ID: matrix.parse_row(
                    ID,
                    {
                        "title": "doubles wrongly",
                        "faulty": [{"mlx-lm": "<1.1"}],
                        "code": [{"releases": ["1.0.0"], "targets": prints}],
                        **(row or {}),
                    },
                )
            },
        )
        seen = registry.Host(Version(version) if version else None, owner)
        points = [p if isinstance(p, Point) else Point(p) for p in patches]
        monkeypatch.setattr(matrix, "load", lambda host=None: known)
        monkeypatch.setattr(registry, "look_up_host", lambda host, folder: seen)
        monkeypatch.setattr(registry, "registered", lambda *_: points)
        started = engine.Engine(settings or Settings(), watched=set())
        if not imported:
            del sys.modules["mlx_lm.core"]
        started.host_seen("mlx_lm")
        return started

    return start


def core():
    return importlib.import_module("mlx_lm.core")


def state(started):
    return started.records[ID].state


def test_a_known_faulty_release_is_patched(run):
    started = run(make_patch())
    assert state(started) is State.APPLIED
    assert core().double(3) == 6
    assert started.status()["patches"][0]["touched"] == [TARGET]


def test_names_bound_before_are_patched_too(host, run):
    user = importlib.import_module("mlx_lm.user")
    run(make_patch())
    assert user.double(3) == 6


def test_undo_restores_the_very_objects_everywhere(host, run):
    user = importlib.import_module("mlx_lm.user")
    original = core().double
    started = run(make_patch())
    started.undo(ID)
    assert core().double is original
    assert user.double is original
    started.apply(ID)
    assert user.double(3) == 6


def test_a_fixed_release_is_left_alone(run):
    started = run(make_patch(), version="1.1.0")
    assert state(started) is State.NOT_NEEDED
    assert core().double(3) == 7


def test_an_unneeded_patch_is_not_even_loaded(run):
    started = run(Point(RuntimeError("never"), ID), version="1.1.0")
    assert state(started) is State.NOT_NEEDED


@pytest.mark.parametrize("version", ["1.2.0", "1.0.0+local", "1.1.0.dev1", None])
def test_of_an_unmeasured_release_the_code_decides(run, version):
    started = run(make_patch(), version=version)
    assert state(started) is State.APPLIED
    assert "1.0.0" in started.records[ID].reason


UNKNOWN = {"code": [{"releases": ["1.0.0"], "targets": {TARGET: "0" * 16}}]}


def test_a_newer_release_with_unknown_code_is_left_alone_and_one_line_says_so(run, caplog):
    row = {**UNKNOWN, "faulty": [{"mlx-lm": "<3"}]}
    started = run(make_patch(), version="1.2.0", row=row)
    started.after_import("mlx_lm.core", core())
    started.after_import("mlx_lm.core", core())
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert core().double(3) == 7
    assert "1.2.0 is not in the matrix" in started.records[ID].reason
    assert [record.getMessage() for record in caplog.records] == [
        "mlx-gemma4-patches: 1 of 1 patches are off on mlx-lm 1.2.0, whose code they do not know; "
        "users may see: doubles wrongly; see python -m mlx_gemma4_patches doctor, and "
        "python -m mlx_gemma4_patches prove tries them on this machine"
    ]


def test_the_line_waits_until_no_import_is_under_way(run, caplog, monkeypatch):
    started = run(make_patch(), row=UNKNOWN)
    monkeypatch.setattr(core().__spec__, "_initializing", True)
    started.after_import("mlx_lm.core", core())
    assert not caplog.records
    monkeypatch.undo()
    started.after_import("mlx_lm", sys.modules["mlx_lm"])
    assert len(caplog.records) == 1


def test_past_the_release_that_fixed_it_unknown_code_is_no_matter(run, caplog):
    started = run(make_patch(), version="1.2.0", row={**UNKNOWN, "fixed_in": "mlx-lm 1.1.0"})
    started.after_import("mlx_lm.core", core())
    assert state(started) is State.NOT_NEEDED
    assert "fixed upstream in mlx-lm 1.1.0" in started.records[ID].reason
    assert not caplog.records


def test_changed_code_of_a_known_release_is_left_alone(run, host):
    started = run(make_patch(), row=UNKNOWN)
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert "not as mlx-lm 1.0.0 ships it" in started.records[ID].reason


def test_another_packages_host_is_patched_where_its_code_is_the_same_and_never_complained_of(
    run, caplog
):
    started = run(make_patch(), version=None, owner="other-lm 3.0")
    assert state(started) is State.APPLIED
    assert started.status()["owners"] == {"mlx_lm": "other-lm 3.0"}
    started = run(make_patch(), version=None, owner="other-lm 3.0", row=UNKNOWN)
    started.after_import("mlx_lm.core", core())
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert "other-lm 3.0" in started.records[ID].reason
    assert not caplog.records


def test_a_missing_target_and_a_foreign_wrapper_are_named(run, monkeypatch):
    row = {"code": [{"releases": ["1.0.0"], "targets": {"mlx_lm.core:gone": "0"}}]}
    started = run(make_patch(), row=row)
    assert "mlx_lm.core:gone (missing)" in started.records[ID].reason
    started = run(make_patch(), imported=False)
    monkeypatch.setattr(core(), "double", textwrap.dedent)
    started.after_import("mlx_lm.core", core())
    assert "(replaced or wrapped by textwrap)" in started.records[ID].reason


def test_a_mock_at_the_target_is_no_code(run, monkeypatch):
    started = run(make_patch(), imported=False)
    monkeypatch.setattr(core(), "double", mock.MagicMock())
    started.after_import("mlx_lm.core", core())
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert "(replaced or wrapped by unittest.mock)" in started.records[ID].reason


def test_without_source_the_version_alone_decides(run, host):
    started = run(make_patch(), imported=False)
    core()
    (host / "core.py").unlink()
    linecache.clearcache()
    started.after_import("mlx_lm.core", core())
    assert state(started) is State.UNVERIFIED
    assert core().double(3) == 6


def test_an_unknown_version_without_source_is_left_alone(run, host):
    started = run(make_patch(), version=None, imported=False)
    core()
    (host / "core.py").unlink()
    linecache.clearcache()
    started.after_import("mlx_lm.core", core())
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert "no source" in started.records[ID].reason


def test_a_patch_that_raises_leaves_nothing_behind(run, caplog):
    def half(surgery):
        surgery.wrap(TARGET, lambda original: lambda x: 0)
        raise RuntimeError("boom\ntwo")

    started = run(make_patch(apply=half))
    assert state(started) is State.FAILED
    assert core().double(3) == 7
    assert "RuntimeError: boom two" in caplog.text  # in one line


@pytest.mark.parametrize("where", ["at import", "in apply"])
def test_a_patch_that_wants_to_end_the_program_is_skipped(run, where):
    def leave(surgery):
        raise SystemExit(3)

    point = Point(SystemExit(3), ID) if where == "at import" else make_patch(apply=leave)
    started = run(point)
    assert state(started) is State.FAILED
    assert "SystemExit: 3" in started.records[ID].reason


def test_who_interrupts_a_patch_interrupts_the_program_and_nothing_is_half_done(run):
    def stop(surgery):
        surgery.wrap(TARGET, lambda original: lambda x: 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_patch(apply=stop))
    assert core().double(3) == 7


def test_strict_raises(run):
    def boom(surgery):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run(make_patch(apply=boom), settings=Settings(strict=True))


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (Point(ImportError("no such thing"), ID), "no such thing"),
        (Point("text", ID), "a str, not a Patch"),
        (Point(make_patch(id="mlx_lm.other"), ID), "the patch 'mlx_lm.other'"),
    ],
)
def test_a_patch_that_does_not_load_is_reported_and_skipped(run, caplog, point, words):
    started = run(point)
    assert state(started) is State.FAILED
    assert words in started.records[ID].reason


def test_a_third_partys_patch_brings_its_own_row(run):
    run(make_patch())  # for the fingerprint
    core_print = fingerprint("mlx_lm.core:Cache.add")
    theirs = Patch(
        id="mlx_lm.theirs",
        targets=("mlx_lm.core:Cache.add",),
        apply=lambda s: s.wrap("mlx_lm.core:Cache.add", lambda original: lambda a, b: a + b),
        probe=lambda: Finding(False, ""),
        row={
            "title": "adds wrongly",
            "faulty": [{"mlx-lm": "==1.0.0"}],
            "code": [{"releases": ["1.0.0"], "targets": {"mlx_lm.core:Cache.add": core_print}}],
        },
    )
    started = run(make_patch(), Point(theirs, package="theirs"))
    assert started.records["mlx_lm.theirs"].state is State.APPLIED
    assert core().Cache.add(2, 3) == 5
    assert core().Cache().add(2, 3) == 5


def test_a_third_partys_patch_without_a_row_is_reported(run):
    started = run(make_patch(), Point(make_patch(id="mlx_lm.theirs"), package="theirs"))
    assert started.records["mlx_lm.theirs"].state is State.FAILED


def test_without_a_registered_patch_there_is_a_problem(run, caplog):
    started = run()
    (problem,) = started.status()["problems"]
    assert "entry_points.txt" in problem
    assert len(caplog.records) == 1


def test_a_call_that_comes_while_the_job_runs_has_it_run_again_and_waits_for_nothing():
    runs = []

    def job():
        runs.append(len(runs))
        if len(runs) == 1:
            once()
            once()

    once = OneAtATime(job)
    once()
    assert runs == [0, 1]
    once()
    assert runs == [0, 1, 2]


def test_a_job_that_raises_can_be_run_again():
    def job():
        raise KeyboardInterrupt

    once = OneAtATime(job)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            once()


def test_disabled_and_opt_in(run):
    assert state(run(make_patch(), settings=Settings(disable=frozenset({ID})))) is State.DISABLED
    assert state(run(make_patch(), row={"opt_in": True})) is State.DISABLED
    enabled = run(make_patch(), row={"opt_in": True}, settings=Settings(enable=frozenset({ID})))
    assert state(enabled) is State.APPLIED


def test_unknown_ids_in_the_settings_are_named_with_the_nearest(run):
    started = run(make_patch(), settings=Settings(disable=frozenset({"mlx_lm.duoble"})))
    assert started.status()["problems"] == [
        "no patch is called 'mlx_lm.duoble'; did you mean mlx_lm.double?"
    ]


def test_undo_reaches_modules_that_were_imported_since(host, run):
    original = core().double
    started = run(make_patch())
    user = importlib.import_module("mlx_lm.user")
    assert user.double(3) == 6
    started.undo(ID)
    assert user.double is original
    started.apply(ID)
    assert user.double(3) == 6


def test_two_patches_share_a_target(run):
    prints = {"releases": ["1.0.0"], "targets": {TARGET: "set below"}}
    core()
    prints["targets"][TARGET] = fingerprint(TARGET)
    second = Patch(
        id="mlx_lm.second",
        targets=(TARGET,),
        apply=lambda s: s.wrap(TARGET, lambda original: lambda x: original(x) * 10),
        probe=lambda: Finding(False, ""),
        row={"title": "t", "faulty": [{"mlx-lm": "==1.0.0"}], "code": [prints]},
    )
    original = core().double
    started = run(make_patch(), Point(second, package="theirs"))
    assert core().double(3) == 60
    assert [p["state"] for p in started.status()["patches"]] == ["applied", "applied"]
    started.undo(ID)  # the lower one
    assert core().double(3) == 70
    started.apply(ID)
    assert core().double(3) == 69
    started.undo(ID)
    started.undo("mlx_lm.second")
    assert core().double is original


def test_a_class_method_stays_one(run):
    target = "mlx_lm.core:Cache.make"
    patch = make_patch(
        apply=lambda s: s.wrap(target, lambda original: lambda cls, n: original(cls, n + 1)),
        targets=(target,),
    )
    run(patch, code=(target,))
    assert core().Cache.make(1) == [core().Cache, 2]


def test_overwritten_by_somebody_else_is_seen_once_and_not_undone(run, caplog):
    started = run(make_patch())
    core().double = textwrap.dedent
    for _ in range(2):
        patch = started.status()["patches"][0]
    assert patch["state"] == "overwritten"
    assert "by textwrap" in patch["reason"]
    assert caplog.text.count("textwrap") == 1
    started.undo(ID)
    assert core().double is textwrap.dedent
    assert state(started) is State.OVERWRITTEN


def by_closure(ours):
    return lambda x: ours(x) + 100


def by_wraps(ours):
    return functools.wraps(ours)(lambda *args: 0)


def by_partial(ours):
    return functools.partial(ours)


@pytest.mark.parametrize("wrap", [by_closure, by_wraps, by_partial])
def test_a_wrapper_of_somebody_else_around_ours_leaves_it_applied(run, wrap, caplog):
    started = run(make_patch())
    core().double = wrap(core().double)
    patch = started.status()["patches"][0]
    assert patch["state"] == "applied"
    assert f"wrapped by {'functools' if wrap is by_partial else __name__}" in patch["reason"]
    assert not caplog.records


def test_two_patches_share_a_target_by_two_names(host, run):
    (host / "user.py").write_text("from mlx_lm.core import Cache\n")
    user = importlib.import_module("mlx_lm.user")
    original = vars(core().Cache)["add"]

    def times_ten(surgery):
        surgery.wrap("mlx_lm.user:Cache.add", lambda original: lambda a, b: original(a, b) * 10)

    def plus_one(surgery):
        surgery.wrap("mlx_lm.core:Cache.add", lambda original: lambda a, b: original(a, b) + 1)

    targets = ("mlx_lm.core:Cache.add", "mlx_lm.user:Cache.add")
    prints = {target: fingerprint(target) for target in targets}
    second = Patch(
        id="mlx_lm.second",
        targets=targets[1:],
        apply=times_ten,
        probe=lambda: Finding(False, ""),
        row={
            "title": "t",
            "faulty": [{"mlx-lm": "==1.0.0"}],
            "code": [{"releases": ["1.0.0"], "targets": {targets[1]: prints[targets[1]]}}],
        },
    )
    first = make_patch(plus_one, targets[:1])
    started = run(first, Point(second, package="theirs"), code=targets[:1])
    assert user.Cache.add(3, 1) == 30
    started.undo(ID)  # the lower one
    assert user.Cache.add(3, 1) == 20
    started.apply(ID)
    started.undo(ID)
    started.undo("mlx_lm.second")
    assert vars(core().Cache)["add"] is original


def test_status_imports_nothing(run):
    started = run(make_patch())
    del sys.modules["mlx_lm.core"]
    assert started.status()["patches"][0]["state"] == "overwritten"
    assert "mlx_lm.core" not in sys.modules


def test_a_reloaded_module_is_patched_again(run):
    started = run(make_patch())
    importlib.reload(core())
    assert core().double(3) == 7
    started.after_import("mlx_lm.core", core())
    assert core().double(3) == 6
    assert started.status()["patches"][0]["state"] == "applied"


def test_a_module_purged_and_imported_again_is_patched_again_once_it_has_run(run, monkeypatch):
    started = run(make_patch())
    del sys.modules["mlx_lm.core"]
    monkeypatch.setattr(core().__spec__, "_initializing", True)  # as another module sees it
    started.after_import("mlx_lm", sys.modules["mlx_lm"])
    assert core().double(3) == 7
    started.after_import("mlx_lm.core", core())
    assert core().double(3) == 6
    assert state(started) is State.APPLIED


def test_a_module_that_was_hidden_from_the_finder_is_served_with_the_next_report(run):
    started = run(make_patch(), imported=False)
    core()
    assert state(started) is State.PENDING
    started.after_import("mlx_lm", sys.modules["mlx_lm"])
    assert state(started) is State.APPLIED


def test_status_serves_what_was_hidden_and_has_no_problem_then(run, monkeypatch):
    started = run(make_patch(), imported=False)
    core()
    monkeypatch.setattr(sys, "meta_path", [mlx_gemma4_patches._finder, *sys.meta_path])
    assert started.status()["patches"][0]["state"] == "applied"
    assert started.status()["problems"] == []


def test_a_finder_that_was_removed_is_a_problem(run, monkeypatch):
    started = run(make_patch())
    monkeypatch.setattr(sys, "meta_path", [])
    (problem,) = started.status()["problems"]
    assert "sys.meta_path" in problem


class TestHooks:
    """What the finder calls: no error of ours reaches the host."""

    SPEC = importlib.machinery.ModuleSpec("mlx_lm", None)

    @pytest.fixture
    def broken(self, monkeypatch):
        def look_up_host(host, folder):
            raise ValueError("two\nlines")

        monkeypatch.setattr(registry, "look_up_host", look_up_host)

    def test_an_error_becomes_one_line(self, broken, caplog):
        engine.Engine(Settings(), watched=set()).before_import(self.SPEC)
        line = "mlx-gemma4-patches: mlx_lm runs without patches: ValueError: two lines"
        assert [record.getMessage() for record in caplog.records] == [line]

    def test_the_next_import_tries_again(self, broken, run, monkeypatch):
        made = engine.Engine(Settings(), watched=set())
        made.before_import(self.SPEC)
        assert made.hosts == {}
        monkeypatch.setattr(
            registry, "look_up_host", lambda host, folder: registry.Host(None, None)
        )
        made.before_import(self.SPEC)
        assert set(made.hosts) == {"mlx_lm"}

    def test_strict_makes_it_an_import_error(self, broken):
        with pytest.raises(ImportError, match="mlx_lm runs without patches"):
            engine.Engine(Settings(strict=True), watched=set()).before_import(self.SPEC)

    def test_a_broken_matrix_applies_nothing_and_says_so(self, run, monkeypatch, caplog):
        def broken(host):
            raise matrix.MatrixError("the file: broken")

        monkeypatch.setattr(matrix, "load", broken)
        fresh = engine.Engine(Settings(), watched=set())
        fresh.before_import(self.SPEC)
        assert fresh.records == {}
        assert "the file: broken" in caplog.text


PROVABLE = {**UNKNOWN, "faulty": [{"mlx-lm": "<1.1"}]}


class TestProved:
    """A release that nobody has measured, and what was proved of it on this machine."""

    @pytest.fixture(autouse=True)
    def environment(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))

    def prove(self, value):
        proof = proofs.Proof({TARGET: value}, {}, "mlx-lm 1.0.5", "2030-01-02", "wrong", "right")
        versions = {n: str(v) for n, v in registry.installed_versions().items()}
        proofs.write(proofs.Proofs(versions, {ID: proof}, {}))

    def test_the_code_that_was_proved_is_patched(self, run, caplog):
        core()
        self.prove(fingerprint(TARGET))
        started = run(make_patch(), version="1.0.5", row=PROVABLE)
        assert state(started) is State.APPLIED
        assert started.records[ID].reason == "proved here on 2030-01-02, on mlx-lm 1.0.5"
        assert core().double(3) == 6
        assert not caplog.records

    def test_any_other_code_is_not(self, run):
        self.prove("1" * 16)
        started = run(make_patch(), version="1.0.5", row=PROVABLE)
        assert state(started) is State.FINGERPRINT_MISMATCH
        assert core().double(3) == 7

    def test_a_patch_of_another_package_is_not(self, run):
        core()
        self.prove(fingerprint(TARGET))
        point = Point(make_patch(row={"title": "x", **PROVABLE}), package="theirs")
        started = run(point, version="1.0.5", row=PROVABLE)
        assert state(started) is State.FINGERPRINT_MISMATCH

    def test_of_a_measured_release_the_file_is_not_even_read(self, run, monkeypatch):
        monkeypatch.setattr(proofs, "read", mock.Mock(side_effect=AssertionError))
        assert state(run(make_patch(), settings=Settings(prove=True))) is State.APPLIED

    def test_a_file_of_no_use_is_a_problem_and_no_more(self, run, caplog):
        self.prove("1" * 16)
        proofs.path().write_text("{")
        started = run(make_patch(), version="1.0.5", row=PROVABLE)
        assert state(started) is State.FINGERPRINT_MISMATCH
        assert [str(proofs.path()) in problem for problem in started.problems] == [True]

    def test_asked_to_it_has_the_command_run_once(self, run, monkeypatch, caplog):
        core()
        calls = []

        def command(arguments, env, **how):
            calls.append((arguments[1:], env["MLX_GEMMA4_PATCHES_PROVE"]))
            self.prove(fingerprint(TARGET))
            return subprocess.CompletedProcess(arguments, 0, "", "")

        monkeypatch.setattr(subprocess, "run", command)
        for _ in range(2):
            started = run(
                make_patch(), version="1.0.5", row=PROVABLE, settings=Settings(prove=True)
            )
            assert state(started) is State.APPLIED
            started.undo(ID)
        assert calls == [(["-m", "mlx_gemma4_patches", "prove"], "0")]
        (record,) = caplog.records
        assert "mlx-lm 1.0.5 is not in the matrix; proving" in record.getMessage()

    def test_where_the_command_fails_the_host_runs_on(self, run, monkeypatch):
        failed = subprocess.CompletedProcess([], 2, "", "error: no luck\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
        started = run(make_patch(), version="1.0.5", row=PROVABLE, settings=Settings(prove=True))
        assert state(started) is State.FINGERPRINT_MISMATCH
        assert started.problems == ["prove failed: error: no luck"]
