"""What every patch owes: tests that each patch's test class inherits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest

import mlx_gemma4_patches
from mlx_gemma4_patches import engine, matrix, registry
from mlx_gemma4_patches.patch import NotApplicable, Patch, State
from mlx_gemma4_patches.record import Record

from . import signatures


def load(patch_id: str) -> Patch:
    return next(registry.load(e) for e in registry.registered() if e.name == patch_id)


def require_all_parts(patch_id: str) -> None:
    """Fail with the command that helps where an entry point, a row or fingerprints are missing."""
    assert patch_id in {e.name for e in registry.registered()}, (
        f"{patch_id} is not registered: python -m tests.new {patch_id} lays its entry point, "
        "python -m pip install --no-deps --no-build-isolation -e . registers it"
    )
    row = matrix.load().rows.get(patch_id)
    assert row, f"{patch_id} has no row: python -m tests.new {patch_id} lays one"
    assert row.code, (
        f"{patch_id} has no fingerprints: "
        f'python -m tests.matrix --write --tests none "{row.distribution}" takes them'
    )


def record(patch_id: str) -> Record:
    """The engine's record, with the modules it waits for imported."""
    for module in engine.ENGINE.records[patch_id].modules:
        with contextlib.suppress(ImportError):
            __import__(module)
    return engine.ENGINE.records[patch_id]


@contextlib.contextmanager
def stock(patch_id: str) -> Iterator[None]:
    """The host without this patch."""
    was_on = record(patch_id).state.is_on
    if was_on:
        engine.ENGINE.undo(patch_id)
    try:
        yield
    finally:
        if was_on:
            engine.ENGINE.apply(patch_id)


@contextlib.contextmanager
def patched(patch_id: str) -> Iterator[None]:
    """The host as its user has it: with the patch, or without where it is not needed."""
    found = record(patch_id)
    is_as_asked = found.state.is_on or found.state is State.NOT_NEEDED
    assert is_as_asked, f"{patch_id}: {found.state.value}: {found.reason}"
    yield


def skip_unless_needed(patch_id: str) -> None:
    """End a test that says nothing where the installed releases do not need the patch."""
    with patched(patch_id):
        if record(patch_id).state is State.NOT_NEEDED:
            pytest.skip(f"{patch_id} is not needed here ({record(patch_id).reason})")


@contextlib.contextmanager
def unpatched(*hosts: str) -> Iterator[None]:
    """The hosts without any patch."""
    with contextlib.ExitStack() as undone:
        for patch_id in engine.ENGINE.records:
            if patch_id.partition(".")[0] in hosts:
                undone.enter_context(stock(patch_id))
        yield


def equal(left: Any, right: Any) -> bool:
    """Exact equality of arrays and of lists, tuples and dictionaries of them."""
    if isinstance(left, mx.array):
        return (
            isinstance(right, mx.array)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and bool(mx.array_equal(left, right, equal_nan=True))
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return left == right


def _contents(owner: Any) -> Any:
    """What a module, a class or a dictionary holds by name."""
    return owner if isinstance(owner, dict) else vars(owner)


@pytest.mark.contract
class PatchContract:
    id: str

    def untouched(self) -> Any:
        """Numbers from a path where nothing is wrong."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _host_is_installed(self) -> None:
        pytest.importorskip(self.id.partition(".")[0])
        require_all_parts(self.id)

    def test_the_fault_is_there_without_the_patch_and_gone_with_it(self) -> None:
        probe = load(self.id).probe
        with patched(self.id):
            if record(self.id).state is State.NOT_NEEDED:
                if matrix.load().rows[self.id].kind == "add":
                    pytest.skip("a capability that this release is not offered")
                try:
                    assert not probe().faulty
                except NotApplicable as reason:
                    pytest.skip(str(reason))
                return
            assert not probe().faulty
        with stock(self.id):
            assert probe().faulty

    def test_the_state_is_the_one_the_matrix_asks_for(self) -> None:
        row = matrix.load().rows[self.id]
        needed = row.is_faulty(registry.installed_versions())
        assert record(self.id).state is (State.APPLIED if needed else State.NOT_NEEDED)

    def test_a_second_round_changes_nothing(self) -> None:
        skip_unless_needed(self.id)
        before = record(self.id).surgery
        engine.ENGINE.serve_imported()
        assert record(self.id).surgery is before
        assert mlx_gemma4_patches.activate() is None
        assert record(self.id).surgery is before

    def test_undone_the_host_is_as_it_was(self) -> None:
        skip_unless_needed(self.id)
        surgery = record(self.id).surgery
        places = surgery.changed_names()
        ours = [_contents(owner)[name] for owner, name in places]
        with stock(self.id):
            for (owner, name), value in zip(places, ours, strict=True):
                # None is a value too
                found = _contents(owner)
                assert name not in found or found[name] is not value
        assert record(self.id).state is State.APPLIED

    def test_a_wrapper_takes_every_call_that_the_original_takes(self) -> None:
        skip_unless_needed(self.id)
        surgery = record(self.id).surgery
        for target in surgery.changed_targets():
            assert not signatures.refused(target), target

    def test_where_nothing_is_wrong_the_output_is_bit_identical(self) -> None:
        skip_unless_needed(self.id)
        with patched(self.id):
            with_patch = self.untouched()
        with stock(self.id):
            without = self.untouched()
        assert equal(with_patch, without)
