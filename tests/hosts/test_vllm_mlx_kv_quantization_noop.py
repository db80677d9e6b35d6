"""What vllm-mlx stores of prompts with --kv-cache-quantization."""

from __future__ import annotations

import importlib

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tests.hosts import batching
from tests.hosts.contract import PatchContract, patched

host = pytest.importorskip("vllm_mlx.memory_cache")

ID = "vllm_mlx.kv_quantization_noop"
_LONG = "".join(f"{number}. Be kind to birds. " for number in range(14))  # past 256 tokens


def _filled(name: str, family: str, *size: int):
    """A cache of 40 tokens, over the whole family of names the same numbers."""
    cache = getattr(importlib.import_module(f"{family}.models.cache"), name)(*size)
    keys = mx.random.normal((1, 2, 40, 64), key=mx.random.key(0))
    cache.update_and_fetch(keys, -keys)
    return cache


class TestKvQuantizationNoop(PatchContract):
    id = ID

    def untouched(self):
        """mlx-lm's caches, sliding windows, and caches without keys."""
        given = [
            _filled("KVCache", "mlx_lm"),
            _filled("RotatingKVCache", "mlx_lm", 16),
            _filled("RotatingKVCache", "mlx_vlm", 16),
        ]
        stored = host._quantize_cache(given, bits=8, group_size=64)
        return [(type(layer).__name__, layer.keys, layer.values) for layer in stored]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", ["mlx_lm", "mlx_vlm"])
def test_a_prompt_takes_less_memory_and_comes_back_nearly_as_it_was(family, bits) -> None:
    if not hasattr(host, "_QuantizedCacheWrapper"):
        pytest.skip("0.2.7 stores mlx-lm's caches alone, as QuantizedKVCache")
    full, window = _filled("KVCache", family), _filled("RotatingKVCache", family, 16)
    with patched(ID):
        stored = host._quantize_cache([full, window], bits=bits, group_size=64)
    assert stored[1] is window
    # up to 0.4.1 its own estimate is 0 beside mlx-lm 0.32, whose state is not a pair
    before, after = (
        sum(array.nbytes for _, array in tree_flatten([layer.keys, layer.values]))
        for layer in (full, stored[0])
    )
    assert after <= before * (bits + 1) / 32 * full.keys.shape[2] / full.offset

    back = host._dequantize_cache(stored)[0]
    assert type(back) is type(full)
    assert back.offset == full.offset
    keys, values = full.keys[..., :40, :], full.values[..., :40, :]
    step = (keys.max() - keys.min()).item() / (2**bits - 1)
    assert mx.abs(back.keys[..., :40, :] - keys).max().item() <= step
    assert mx.abs(back.values[..., :40, :] - values).max().item() <= step
    # and it goes on from there
    new = mx.ones((1, 2, 1, 64))
    assert back.update_and_fetch(new, new)[0].shape[2] == 41


def test_a_question_asked_again_is_answered_from_quantized_keys(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny", batching.PLAIN_TEMPLATE)
    asked = batching.message(_LONG)
    how = {"kv_cache_quantization": True, "kv_cache_quantization_bits": 8}
    with batching.engine(folder, **how) as engine:
        answers = [engine.answer(asked, max_tokens=4).text for _ in range(2)]
        cache = engine.engine._mllm_scheduler.batch_generator
        cache = getattr(cache, "prefix_cache", None)
        kinds = {
            type(layer).__name__
            for entry in (cache._entries.values() if cache is not None else ())
            for layer in entry.cache
        }
    assert answers[0] == answers[1]
    if kinds:  # most releases store nothing of a prompt that is longer than the window
        assert kinds == {"_QuantizedCacheWrapper", "RotatingKVCache"}
