"""The KV cache compressed by turboquant is made from what was cached before, beside any mlx-lm."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import distance

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")

ID = "mlx_vlm.turboquant_state"
KEYS, VALUES = mx.random.normal((2, 1, 2, 300, 32), key=mx.random.key(0))


def _compressed(cache, bits: int = 8) -> list[mx.array]:
    from mlx_vlm.turboquant import TurboQuantKVCache

    made = TurboQuantKVCache.from_cache(cache, bits=bits)
    return [made.offset, *made.dequantize()]


class TestTurboquantState(PatchContract):
    id = ID

    def untouched(self):
        """A cache whose state is the keys and values."""

        class Cache:
            state = (KEYS, VALUES)

        return _compressed(Cache())


@pytest.mark.parametrize("length", [3, 300])
def test_what_was_cached_is_compressed(length) -> None:
    from mlx_vlm.models.cache import KVCache
    from mlx_vlm.turboquant import TurboQuantKVCache

    cache, whole = KVCache(), TurboQuantKVCache(bits=8)
    for part in (cache, whole):
        part.update_and_fetch(KEYS[..., :length, :], VALUES[..., :length, :])
    with patched(ID):
        made = TurboQuantKVCache.from_cache(cache, bits=8)
    assert made.offset == length
    for ours, theirs in zip(made.dequantize(), whole.dequantize(), strict=True):
        assert ours.shape == (1, 2, length, 32)
        assert distance(ours, theirs) == 0


def test_it_answers_as_it_does_uncompressed_until_it_starts(tmp_path) -> None:
    loaded = answers.load("dense", tmp_path)
    prompt = tiny.prompt(20)
    how = {"kv_bits": 4, "kv_quant_scheme": "turboquant"}
    with patched(ID):
        late = loaded.answer(prompt, 12, quantized_kv_start=26, **how)
        assert len(loaded.answer(prompt, 12, quantized_kv_start=0, **how)) == 12
    assert late[:6] == loaded.answer(prompt, 6)
