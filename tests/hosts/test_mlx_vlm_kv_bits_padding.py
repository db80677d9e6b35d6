"""The padding of a batch is not attended to in quantized caches.

What a batch with ``kv_bits`` answers is in test_mlx_vlm_kv_bits_batch.py.
"""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract, patched
from tests.hosts.test_mlx_vlm_kv_bits_batch import skip_without_quantized_batches

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")

ID = "mlx_vlm.kv_bits_padding"


def _caches(padding: list[int]) -> list:
    from mlx_vlm.models.cache import BatchQuantizedKVCache
    from mlx_vlm.turboquant import BatchTurboQuantKVCache

    return [
        BatchQuantizedKVCache(padding, group_size=32, bits=8),
        BatchTurboQuantKVCache(padding, bits=4),
    ]


class TestKvBitsPadding(PatchContract):
    id = ID

    def untouched(self):
        """Masks of the unquantized caches of a batch."""
        from mlx_vlm.models.cache import BatchKVCache

        cache = BatchKVCache([0, 2])
        cache.update_and_fetch(mx.ones((2, 1, 6, 32)), mx.ones((2, 1, 6, 32)))
        return cache.make_mask(1), cache.make_mask(3)


@pytest.mark.parametrize("length", [1, 3])
def test_a_row_sees_its_own_tokens_alone(length) -> None:
    skip_without_quantized_batches()
    padding, tokens = 2, mx.ones((2, 1, 6, 32))
    with patched(ID):
        for cache in _caches([0, padding]):
            cache.update_and_fetch(tokens, tokens)
            mask = cache.make_mask(length, return_array=True, window_size=None)
            mask = mx.broadcast_to(mask, (2, 1, length, 6 + length))
            for row, hidden in enumerate((0, padding)):
                for query in range(length):
                    seen = [key for key, one in enumerate(mask[row, 0, query].tolist()) if one]
                    assert seen == list(range(hidden, 6 + query + 1))
