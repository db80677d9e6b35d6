"""With ``kv_bits`` the prompts of a batch are answered as each of them alone."""

from __future__ import annotations

import inspect
from importlib import import_module

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched, stock

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")

ID = "mlx_vlm.kv_bits_batch"
ROWS = [tiny.prompt(length, seed=length) for length in (40, 12, 39)]
HOW = {"kv_bits": 8, "quantized_kv_start": 0}


def skip_without_quantized_batches() -> None:
    generator = import_module("mlx_vlm.generate").BatchGenerator
    if "kv_bits" not in inspect.signature(generator).parameters:
        pytest.skip("this mlx-vlm quantizes no batch")


class TestKvBitsBatch(PatchContract):
    id = ID

    def untouched(self):
        """Batches that are not quantized, and a row alone."""
        made = model("dense").language_model
        ids = mx.array([ROWS[0], [*ROWS[2], 110]])
        return made(ids).logits, made(ids[:1]).logits


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_a_batch_is_answered_as_its_rows_alone(shape, tmp_path) -> None:
    skip_without_quantized_batches()
    loaded = answers.load(shape, tmp_path)
    with patched(ID):
        alone = [loaded.together([row], 6, **HOW)[0] for row in ROWS]
        assert loaded.together(ROWS, 6, **HOW) == alone


def test_turboquant_in_a_batch_is_as_without_the_patch(tmp_path) -> None:
    """Rows of one length: 0.5.0 knows of no padding without it."""
    skip_without_quantized_batches()
    loaded = answers.load("dense", tmp_path)
    how = {"kv_bits": 4, "kv_quant_scheme": "turboquant", "quantized_kv_start": 0}
    rows = [tiny.prompt(20), tiny.prompt(20, seed=1)]
    with stock(ID):
        expected = loaded.together(rows, 6, **how)
    with patched(ID):
        assert loaded.together(rows, 6, **how) == expected
