"""A draft that is verified and rejected past the window leaves nothing behind."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.batches import Batch, CacheContract, cache_module
from tests.hosts.parity import TOLERANCE


class TestRotatingTrim(CacheContract):
    id = "mlx_lm.rotating_trim"

    @pytest.mark.parametrize("rejected", [1, 3])
    def test_a_row_goes_on_after_a_rejected_draft(self, subject, rejected) -> None:
        row = Batch.alone(subject, 0, 30)
        row.decode(5)
        for _ in range(3):
            row.feed([4])
            row.rewind(rejected)
            row.decode(1)
        row.decode()
        assert row.worst < TOLERANCE

    @pytest.mark.parametrize("rejected", [1, 3])
    def test_a_batch_goes_on_after_rejected_drafts(self, subject, rejected) -> None:
        batch = Batch.left_padded(subject, (40, 21))
        for _ in range(3):
            batch.feed([4, 4])
            batch.rewind(rejected)
            batch.decode(1)
        row = batch.extract(1)
        row.decode(2)
        batch.decode()
        assert max(batch.worst, row.worst) < TOLERANCE

    def test_a_whole_prompt_is_rewound_to_a_short_one(self, subject) -> None:
        row = Batch.alone(subject, 0, 30)
        row.rewind(27)
        row.decode(20)
        assert row.worst < TOLERANCE

    def test_a_full_window_says_that_it_cannot_be_trimmed_as_before(self) -> None:
        caches = cache_module(self.host())
        for cache in (caches.RotatingKVCache(4), caches.BatchRotatingKVCache(4, [0])):
            for count, trimmable in ((3, True), (1, False), (5, False)):
                cache.update_and_fetch(*[mx.zeros((1, 1, count, 4))] * 2)
                assert cache.is_trimmable() is trimmable
            assert cache.trim(2) == 2
            assert not cache.is_trimmable()

    def test_a_ring_is_left_to_the_host(self) -> None:
        # its oldest tokens are gone: nothing exact can be had
        cache = cache_module(self.host()).RotatingKVCache(4)
        for _ in range(7):
            cache.update_and_fetch(*[mx.zeros((1, 1, 1, 4))] * 2)
        assert cache.trim(1) == 1
        assert (cache.keys.shape[2], cache.offset, cache._idx) == (4, 6, 2)
