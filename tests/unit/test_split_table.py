"""One embedding table in pieces, and the file it is read from."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_gemma4_patches.gemma4 import split_table, tiny
from mlx_gemma4_patches.gemma4.split_table import SplitEmbedding

ROWS = 100


def cut(weight, *at):
    parts = []
    for start, stop in zip((0, *at), (*at, ROWS), strict=True):
        part = nn.Embedding(1, 1)
        part.weight = weight[start:stop]
        parts.append(part)
    return SplitEmbedding(parts)


@pytest.fixture
def weight():
    return mx.random.normal((ROWS, 8), key=mx.random.key(0))


@pytest.mark.parametrize("at", [(), (50,), (1, 99), (30, 60, 90)], ids=str)
@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32, mx.int64, mx.uint8], ids=str)
def test_every_row_is_found_in_its_piece(weight, at, dtype):
    table = cut(weight, *at)
    ids = mx.arange(ROWS).astype(dtype)
    assert mx.array_equal(table(ids), weight)
    assert mx.array_equal(table(ids.reshape(2, 5, 10)), weight.reshape(2, 5, 10, 8))
    assert table(ids[:0]).shape == (0, 8)


def test_the_whole_is_what_was_cut(weight):
    assert mx.array_equal(cut(weight, 30, 60).whole().weight, weight)


def test_a_gradient_reaches_every_piece(weight):
    table = cut(weight, 50)
    ids = mx.array([1, 60, 60])
    _, gradient = nn.value_and_grad(table, lambda table: table(ids).sum())(table)
    one, other = (part["weight"] for part in gradient["parts"])
    assert one.sum().item() == 8 and other.sum().item() == 16
    assert other[10].sum().item() == 16


@pytest.fixture
def limited(monkeypatch):
    told = {**mx.device_info(), "max_buffer_length": 1 << 16}
    monkeypatch.setattr(mx, "device_info", lambda *args: told)


@pytest.mark.usefixtures("limited")
class TestFile:
    def test_a_large_table_is_found(self, tmp_path):
        table = split_table.too_large(tiny.save("e2b", tmp_path, dtype=mx.bfloat16))
        weights = tiny.weights("e2b")[f"model.language_model.{split_table.NAME}.weight"]
        assert list(table) == ["weight"]
        assert table["weight"].shape == weights.shape
        read = table["weight"].rows(100, 103)
        assert mx.array_equal(read, weights[100:103].astype(mx.bfloat16))

    def test_other_shapes_have_none(self, tmp_path):
        assert split_table.too_large(tiny.save("dense", tmp_path)) is None

    def test_other_models_are_none_of_our_business(self, tmp_path):
        tiny.save("e2b", tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n"}))
        assert split_table.too_large(tmp_path) is None

    @pytest.mark.parametrize(
        "content",
        [b"", b"\x10", b"\xff" * 8, b"\x02" + bytes(7) + b"{]", b"\x02" + bytes(7) + b"[]"],
    )
    def test_a_broken_file_is_left_to_the_host(self, tmp_path, content):
        tiny.save("e2b", tmp_path)
        (tmp_path / "model-2.safetensors").write_bytes(content)
        assert split_table.too_large(tmp_path) is None

    def test_a_missing_folder_too(self, tmp_path):
        assert split_table.too_large(tmp_path / "none") is None
