"""Which tokens a model folder suppresses, and the logits processor for them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest.mock import Mock

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import stop_tokens, suppressed_tokens, tiny
from tests.hosts import tokenizer

LOGITS = mx.arange(tiny.VOCABULARY, dtype=mx.float32)[None]


@pytest.fixture
def folder(tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny.config("dense")))
    return tmp_path


def suppressed(folder, named):
    (folder / "generation_config.json").write_text(json.dumps({"suppress_tokens": named}))
    processor = suppressed_tokens.of_gemma4(folder)
    if processor is None:
        return None
    logits = processor(mx.array([0]), LOGITS)
    lost = logits[0] == -mx.inf
    assert mx.array_equal(mx.where(lost, LOGITS[0], logits[0]), LOGITS[0])
    return [i for i, value in enumerate(lost.tolist()) if value]


@pytest.mark.parametrize(
    ("named", "ids"),
    [
        ([506, 501], [501, 506]),
        (501, [501]),
        ([501.0, "506"], [501, 506]),
        (["<image|>", "<audio|>"], [501, 506]),
        ([[501], [[506]]], [501, 506]),
        ([0], [0]),
    ],
    ids=str,
)
def test_ids_are_read_in_every_form(folder, named, ids):
    assert suppressed(folder, named) == ids


@pytest.mark.parametrize("named", [None, [], [None], "", [512], [-1], [True], [1.5], {"a": 1}])
def test_what_names_no_token_suppresses_none(folder, named):
    assert suppressed(folder, named) is None


def test_what_is_left_out_is_warned_of(folder, caplog):
    stop_tokens._warn.cache_clear()
    assert suppressed(folder, [501, 512, "<none>"]) == [501]
    (record,) = caplog.records
    assert "generation_config.json: left out of suppressed tokens: 512" in record.getMessage()


def test_other_models_are_none_of_our_business(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    assert suppressed(folder, [501]) is None


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b'{"suppress_tokens": [50'])
def test_a_broken_file_suppresses_nothing(folder, content):
    (folder / "generation_config.json").write_bytes(content)
    assert suppressed_tokens.of_gemma4(folder) is None


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
def test_logits_of_a_batch_keep_shape_and_dtype(dtype):
    logits = mx.zeros((3, 8), dtype)
    made = suppressed_tokens.SuppressTokens([2, 7], 8)(mx.array([0]), logits)
    assert made.dtype == dtype and made.shape == (3, 8)
    assert made.tolist() == [[0, 0, float("-inf"), 0, 0, 0, 0, float("-inf")]] * 3


def test_a_note_is_found_on_a_model_that_has_one_and_on_no_other_object(folder):
    (folder / "generation_config.json").write_text('{"suppress_tokens": [501]}')
    model, processor = SimpleNamespace(), suppressed_tokens.of_gemma4(folder)
    assert suppressed_tokens.noted(model) is None
    suppressed_tokens.note(model, processor)
    assert suppressed_tokens.noted(model) is processor
    assert suppressed_tokens.noted(Mock()) is None  # it answers to every name
