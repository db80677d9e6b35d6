"""A batch that requests join keeps its dtype and its size, and every row goes on as alone."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.batches import Batch, CacheContract
from tests.hosts.parity import TOLERANCE


class TestBatchDtype(CacheContract):
    id = "mlx_lm.batch_dtype"

    @pytest.mark.parametrize("joins", [True, False], ids=["joins", "is joined"])
    @pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32], ids=str)
    def test_rows_without_tokens_cost_their_share(self, joins, dtype) -> None:
        for running, empty in zip(self.both([0, 0]), self.both([0]), strict=True):
            keys = mx.zeros((2, 1, 20, 4), dtype)
            running.update_and_fetch(keys, keys[..., :2])
            expected = running.nbytes * 3 // 2
            first, second = (running, empty) if joins else (empty, running)
            first.extend(second)
            assert first.keys.dtype == first.values.dtype == dtype
            assert first.nbytes == expected
            assert first.offset.tolist() == ([20, 20, 0] if joins else [0, 20, 20])

    @pytest.mark.parametrize("joins", [True, False], ids=["joins", "is joined"])
    def test_rows_without_tokens_start_beside_running_ones(self, subject, joins) -> None:
        running = Batch.left_padded(subject, (21, 5))
        running.decode(2)
        empty = Batch(subject, subject.batch_caches([0]), [2], [0])
        first, second = (running, empty) if joins else (empty, running)
        first.extend(second)
        counts = [7 if row == 2 else 1 for row in first.rows]
        first.prepare(counts)
        first.feed(counts)
        first.finalize()
        first.decode()
        assert first.worst < TOLERANCE

    def test_the_batch_that_joined_is_left_as_it_was(self, subject) -> None:
        running = Batch.left_padded(subject, (21, 5))
        empty = subject.batch_caches([0])
        for layer, joining in zip(running.layers, empty, strict=True):
            layer.extend(joining)
        assert all(layer.empty() for layer in empty)
