"""Gemma 4 of mlx-lm in several processes; ``python -m tests.hosts.machines`` tries all of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_gemma4_patches.gemma4 import shares, tiny
from mlx_gemma4_patches.hosts.mlx_lm import sharding
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import machines, sharded
from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE, distance

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestShard(PatchContract):
    id = "mlx_lm.shard"

    def untouched(self) -> Any:
        ids = mx.array([tiny.prompt(8)])
        return [text_model(shape)(ids) for shape in tiny.SHAPES]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("queries", "keys"), [(8, 1), (8, 2), (32, 16), (32, 4), (16, 8), (6, 3)])
def test_every_query_head_finds_its_key_head(queries: int, keys: int, size: int) -> None:
    found = [shares.of_heads(queries, keys, rank, size) for rank in range(size)]
    if None in found:
        assert queries % size or (keys % size and size % keys)
        return
    seen = []
    for mine, read in found:
        each = (mine.end - mine.begin) // (read.end - read.begin)  # as attention groups them
        for head in range(mine.begin, mine.end):
            assert read.begin + (head - mine.begin) // each == head // (queries // keys)
            seen.append(head)
    assert seen == list(range(queries))


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_shares_are_all_there_is_in_whole_groups(size: int) -> None:
    for count, unit in ((704, 64), (2112, 64), (128, 1)):
        made = [shares.of(count, rank, size, unit) for rank in range(size)]
        assert made[0].begin == 0 and made[-1].end == count
        assert all(left.end == right.begin for left, right in pairwise(made))
        assert all((share.end - share.begin) % unit == 0 for share in made)
    assert shares.of(128, 0, 4, 64) is None


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_what_the_machines_make_adds_up(
    shape: str, size: int, bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx.distributed, "all_sum", lambda x, **how: x)

    def made() -> Any:
        model = text_model(shape)
        if bits:
            nn.quantize(model, 64, bits)
        return model.language_model.model

    whole, parts = made(), []
    for rank in range(size):
        parts.append(made())
        group = SimpleNamespace(rank=lambda rank=rank: rank, size=lambda: size)
        sharding.shard(parts[-1], group)
    x = mx.array(tiny.tensor("hidden states", (1, 5, 192)))
    for at, layer in enumerate(whole.layers):
        mine = [part.layers[at] for part in parts]
        _adds_up([part.mlp for part in mine], layer.mlp, [p.mlp.down_proj for p in mine], x)
        if layer.enable_moe:
            chosen = layer.router(x)
            experts = [part.experts for part in mine]
            _adds_up(experts, layer.experts, experts, x, *chosen)
        if layer.self_attn.has_kv:
            attention = [lambda x, a=part.self_attn: a(x)[0] for part in mine]
            expected = lambda x, a=layer.self_attn: a(x)[0]  # noqa: E731
            _adds_up(attention, expected, [p.self_attn.o_proj for p in mine], x)


def _adds_up(parts: list[Any], whole: Any, last: list[Any], *inputs: mx.array) -> None:
    made = [part(*inputs) for part in parts]
    if isinstance(last[0], sharding.Summed):
        made = [sum(made)]
    for each in made:
        assert distance(each, whole(*inputs)) < TOLERANCE


def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    far, same, (whole, *held) = machines.compare(machines.save("e2b", "4 bits", tmp_path), 2)
    assert far < TOLERANCE
    assert same == ["8/8", "8/8", "16/16", "16/16"]
    assert max(held) < 0.75 * whole


def test_a_process_that_ends_ends_the_others(tmp_path: Path) -> None:
    # launch() raises where one is left after its time
    done = sharded.launch(machines.save("dense", "float32", tmp_path), 2, "--die")
    said = done.stdout + done.stderr
    assert "this process ends" in said
    assert "connection to a peer was lost" in said or "exited with code" in said
