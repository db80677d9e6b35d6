"""Gemma 4 of mlx-lm in a pipeline; ``python -m tests.hosts.machines pipeline`` tries all of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.gemma4 import split_table, tiny
from mlx_gemma4_patches.hosts.mlx_lm import pipelining
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import checkpoints, machines, sharded
from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestPipeline(PatchContract):
    id = "mlx_lm.pipeline"

    def untouched(self) -> Any:
        ids = mx.array([tiny.prompt(8)])
        return [text_model(shape)(ids) for shape in tiny.SHAPES]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[mx.array]:
    """Machines that are called one after the other: what the next one will receive."""
    sent: list[mx.array] = []

    def send(x: mx.array, to: int, **how: Any) -> mx.array:
        sent.append(x)
        return x

    def recv(shape: Any, dtype: mx.Dtype, source: int, **how: Any) -> mx.array:
        received = sent.pop()
        assert (received.shape, received.dtype) == (shape, dtype)
        return received

    monkeypatch.setattr(mx.distributed, "send", send)
    monkeypatch.setattr(mx.distributed, "recv", recv)
    monkeypatch.setattr(mx.distributed, "all_gather", lambda x, **how: x)
    return sent


def _part(shape: str, rank: int, size: int, change: Any, split: list[int] | None = None) -> Any:
    model = change(text_model(shape))
    names = [name for name, _ in tree_flatten(model.parameters())]
    group = SimpleNamespace(rank=lambda: rank, size=lambda: size)
    pipelining.pipeline(model.language_model.model, group, split)
    left = [name for name, _ in tree_flatten(model.parameters())]
    assert set(left) < set(names) if size > 1 else left == names  # the host goes by names
    return model


def _plain(model: Any) -> Any:
    return model


def _quantized(model: Any) -> Any:
    nn.quantize(model, checkpoints.GROUP, 4)
    return model


def _in_pieces(model: Any) -> Any:
    """As ``mlx_lm.ple_split`` loads E2B on devices that do not take its table."""
    inner = _quantized(model).language_model.model
    if inner.hidden_size_per_layer_input:
        table, parts = inner.embed_tokens_per_layer, []
        for rows in (slice(0, 300), slice(300, None)):
            part = nn.QuantizedEmbedding(1, checkpoints.GROUP, checkpoints.GROUP, 4)
            part.update({name: value[rows] for name, value in table.parameters().items()})
            parts.append(part)
        inner.embed_tokens_per_layer = split_table.SplitEmbedding(parts)
    return model


@pytest.mark.parametrize("change", [_plain, _quantized, _in_pieces])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_parts_say_what_the_whole_says(
    shape: str, size: int, change: Any, wire: list[mx.array]
) -> None:
    whole = change(text_model(shape))
    parts = [_part(shape, rank, size, change) for rank in reversed(range(size))]
    cache, caches = whole.make_cache(), [part.make_cache() for part in parts]
    assert [type(c) for c in cache] == [type(c) for part in caches for c in part]
    ids = mx.array([tiny.prompt(40)])
    for step in (ids[:, :7], ids[:, 7:39], ids[:, 39:]):
        expected = whole(step, cache=cache)
        for part, held in zip(parts, caches, strict=True):
            said = part(step, cache=held)
        assert mx.array_equal(said, expected)
    assert not wire


def test_a_user_says_how_many_layers_each_holds(wire: list[mx.array]) -> None:
    parts = [_part("dense", rank, 2, _plain, split=[2, 4]) for rank in (1, 0)]
    assert [len(part.layers) for part in parts] == [4, 2]
    assert (parts[1].language_model.model.start_idx, parts[1].language_model.model.end_idx) == (
        4,
        6,
    )
    with pytest.raises(ValueError, match="must hold layer 4 too"):
        _part("e2b", 0, 2, _plain, split=[3, 6])


def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    folder = machines.save("e2b", "4 bits", tmp_path)
    far, same, (whole, *held) = machines.compare(folder, 2, "--pipeline")
    assert far < TOLERANCE
    assert same == ["8/8", "8/8", "16/16", "16/16"]
    assert max(held) < 0.75 * whole


def test_a_process_that_ends_ends_the_others(tmp_path: Path) -> None:
    # launch() raises where one is left after its time
    done = sharded.launch(machines.save("dense", "float32", tmp_path), 2, "--pipeline", "--die")
    said = done.stdout + done.stderr
    assert "this process ends" in said
    assert "connection to a peer was lost" in said or "exited with code" in said
