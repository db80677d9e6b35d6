"""The engine on a small host of our own, written to a folder and really imported."""

import importlib
import linecache
import sys
import textwrap

import pytest
from packaging.version import Version

from mlx_gemma4_patches import engine, matrix, registry
from mlx_gemma4_patches.fingerprint import fingerprint
from mlx_gemma4_patches.patch import Finding, Patch, State
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
    """An entry point that needs no installation."""

    def __init__(self, patch, name=None):
        self.name = name or patch.id
        self.value = f"{self.name}:{id(patch)}"
        self._patch = patch

    def load(self):
        if isinstance(self._patch, Exception):
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
    hidden = [name for name in sys.modules if name.partition(".")[0] == "mlx_lm"]
    for name in hidden:
        monkeypatch.delitem(sys.modules, name)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlx_lm"]:
        del sys.modules[name]


@pytest.fixture
def run(host, monkeypatch):
    """Starts an engine for the host with given patches, version and settings."""

    def start(*patches, version="1.0.0", settings=None, row=None, code=None, imported=True):
        importlib.import_module("mlx_lm.core")
        prints = {target: fingerprint(target) for target in (code or (TARGET,))}
        known = matrix.Matrix(
            releases={"mlx-lm": ("1.0.0", "1.1.0")},
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
        versions = {"mlx-lm": Version(version) if version else None}
        points = [p if isinstance(p, Point) else Point(p) for p in patches]
        monkeypatch.setattr(matrix, "load", lambda host=None: known)
        monkeypatch.setattr(registry, "installed_versions", lambda names: versions)
        monkeypatch.setattr(registry, "registered", lambda *_: points)
        started = engine.Engine(settings or Settings())
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


def test_an_unmeasured_release_with_unknown_code_is_left_alone_with_a_warning(run, caplog):
    row = {"code": [{"releases": ["1.0.0"], "targets": {TARGET: "0" * 16}}]}
    started = run(make_patch(), version="1.2.0", row=row)
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert core().double(3) == 7
    assert "1.2.0 is not in the matrix" in caplog.text


def test_an_unmeasured_release_with_known_fine_code_needs_nothing(run, caplog):
    started = run(
        make_patch(),
        version="1.2.0",
        row={
            "code": [
                {"releases": ["1.0.0"], "targets": {TARGET: "0" * 16}},
                {"releases": ["1.1.0"], "targets": {TARGET: "PRINT"}},
            ]
        },
        imported=False,
    )
    record = started.records[ID]
    record.fine = (matrix.Code(("1.1.0",), {TARGET: fingerprint(TARGET)}),)
    started.module_imported(core())
    assert record.state is State.NOT_NEEDED
    assert not caplog.records


def test_changed_code_of_a_known_release_is_left_alone(run, host):
    row = {"code": [{"releases": ["1.0.0"], "targets": {TARGET: "0" * 16}}]}
    started = run(make_patch(), row=row)
    assert state(started) is State.FINGERPRINT_MISMATCH
    assert "not as mlx-lm 1.0.0 ships it" in started.records[ID].reason


def test_a_missing_target_and_a_foreign_wrapper_are_named(run, monkeypatch):
    row = {"code": [{"releases": ["1.0.0"], "targets": {"mlx_lm.core:gone": "0"}}]}
    started = run(make_patch(), row=row)
    assert "mlx_lm.core:gone (missing)" in started.records[ID].reason
    started = run(make_patch(), imported=False)
    monkeypatch.setattr(core(), "double", textwrap.dedent)
    started.module_imported(core())
    assert "(wrapped by textwrap)" in started.records[ID].reason


def test_without_source_the_version_alone_decides(run, host):
    started = run(make_patch(), imported=False)
    core()
    (host / "core.py").unlink()
    linecache.clearcache()
    started.module_imported(core())
    assert state(started) is State.UNVERIFIED
    assert core().double(3) == 6


def test_an_unknown_version_without_source_is_left_alone(run, host):
    started = run(make_patch(), version=None, imported=False)
    core()
    (host / "core.py").unlink()
    linecache.clearcache()
    started.module_imported(core())
    assert state(started) is State.WRONG_VERSION


def test_a_patch_that_raises_leaves_nothing_behind(run, caplog):
    def half(surgery):
        surgery.wrap(TARGET, lambda original: lambda x: 0)
        raise RuntimeError("boom")

    started = run(make_patch(apply=half))
    assert state(started) is State.FAILED
    assert core().double(3) == 7
    assert "RuntimeError: boom" in caplog.text


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
    started = run(theirs)
    assert started.records["mlx_lm.theirs"].state is State.APPLIED
    assert core().Cache.add(2, 3) == 5
    assert core().Cache().add(2, 3) == 5


def test_a_third_partys_patch_without_a_row_is_reported(run):
    started = run(make_patch(id="mlx_lm.theirs"))
    assert started.records["mlx_lm.theirs"].state is State.FAILED


def test_a_second_module_that_ran_meanwhile_is_not_missed(run):
    started = run(make_patch(), imported=False)

    record = started.records[ID]
    record.calls = 1
    started.module_imported(core())
    assert record.state is State.PENDING
    assert record.calls == 2  # whoever is at it will see that it has to go round again
    record.calls = 0
    started.module_imported(core())
    assert record.state is State.APPLIED


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
    started = run(make_patch(), second)
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


def test_overwritten_by_somebody_else_is_seen_and_not_undone(run):
    started = run(make_patch())
    core().double = textwrap.dedent
    assert started.status()["patches"][0]["state"] == "overwritten"
    started.undo(ID)
    assert core().double is textwrap.dedent
    assert state(started) is State.OVERWRITTEN


def test_a_reloaded_module_is_patched_again(run):
    started = run(make_patch())
    importlib.reload(core())
    assert core().double(3) == 7
    started.module_imported(core())
    assert core().double(3) == 6
    assert started.status()["patches"][0]["state"] == "applied"


def test_a_broken_matrix_applies_nothing_and_says_so(run, monkeypatch, caplog):
    started = run(make_patch(), imported=False)
    fresh = engine.Engine(Settings())

    def broken(host):
        raise matrix.MatrixError("the file: broken")

    monkeypatch.setattr(matrix, "load", broken)
    fresh.host_seen("mlx_lm")
    assert fresh.records == {}
    assert "the file: broken" in caplog.text
    assert started.records
