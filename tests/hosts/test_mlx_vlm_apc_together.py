"""Prompts that find their beginnings in the prefix cache together are answered as alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.patches.mlx_vlm import apc_together
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched, skip_unless_needed, stock

ID = "mlx_vlm.apc_together"
PREFIX_REUSE = "mlx_vlm.prefix_reuse"  # where it is on, blocks are not used: the fault is hidden
TEXT = tiny.prompt(100, seed=2)
OTHER = tiny.prompt(60, seed=1)

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def new_cache():
    return pytest.importorskip("mlx_vlm.apc").APCManager(num_blocks=64)


@pytest.fixture(scope="module", params=tiny.SHAPES)
def loaded(request, tmp_path_factory):
    new_cache()  # or skip
    return answers.load(request.param, tmp_path_factory.mktemp(request.param))


class TestApcTogether(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_model(self, tmp_path):
        self.folder = tmp_path

    @pytest.fixture(autouse=True)
    def _blocks_are_used(self, _host_is_installed):
        with stock(PREFIX_REUSE):
            yield

    def untouched(self):
        manager, model = new_cache(), answers.load("dense", self.folder)
        rounds = [TEXT[:40]], [TEXT[:40], TEXT[:40]], [TEXT[:50]], [OTHER[:40], OTHER[:30]]
        return [model.together(list(rows), apc_manager=manager) for rows in rounds]


ROUNDS = {
    "a turn more each": [[TEXT[:70], OTHER[:40]], [TEXT[:84], OTHER[:43]]],
    "known and new": [[TEXT[:40], OTHER[:40]], [TEXT[:50], OTHER[5:53]]],
    "the same and new": [[TEXT[:40], TEXT[:40]], [TEXT[:40], OTHER[:48]]],
    "three of one": [[TEXT[:70]], [TEXT[:70], TEXT[:84], TEXT[:70] + OTHER[:7]]],
    "a fork": [[TEXT[:84], OTHER[:20]], [TEXT[:70] + OTHER, TEXT[:60]]],
}


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("step", [8, 2048])
def test_prompts_are_answered_as_alone(loaded, rounds, step):
    with patched(ID):
        how = {"apc_manager": new_cache(), "prefill_step_size": step}
        for rows in ROUNDS[rounds]:
            assert loaded.together(rows, **how) == [loaded.answer(row) for row in rows]


def test_without_the_patch_they_are_not(loaded):
    skip_unless_needed(ID)
    with stock(PREFIX_REUSE), stock(ID):
        manager = new_cache()
        for rows in ROUNDS["the same and new"]:
            said = loaded.together(rows, apc_manager=manager)
        assert said[0] != loaded.answer(rows[0])


def test_what_was_seen_is_reused(loaded):
    with patched(ID):
        manager = new_cache()
        for rows in ROUNDS["the same and new"]:
            loaded.together(rows, apc_manager=manager)
        stats = manager.stats_snapshot()
        assert stats["matched_tokens"] >= 24, stats


def test_a_batch_that_knows_of_no_padding_is_left_alone():
    for batch in (None, SimpleNamespace(), SimpleNamespace(_right_pad_per_row=None)):
        assert apc_together.in_one_chunk(lambda _, made: made)(None, batch) is batch
