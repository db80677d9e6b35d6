"""Conversations longer than the window are merged, extracted and merged again."""

from __future__ import annotations

import pytest

from tests.hosts.batches import Batch, CacheContract
from tests.hosts.parity import TOLERANCE


class TestRotatingExtract(CacheContract):
    id = "mlx_lm.rotating_extract"

    @pytest.mark.parametrize("lengths", [(40, 21, 5), (16, 2)], ids=str)
    @pytest.mark.parametrize("steps", [0, 20])
    def test_they_go_on_as_alone(self, subject, lengths, steps) -> None:
        batch = Batch.merged(subject, lengths)
        batch.decode(steps)
        rows = [batch.extract(index) for index in reversed(range(len(lengths)))]
        rows[0].decode(3)
        again = Batch.of(rows)
        again.decode(3)
        assert max(batch.worst, rows[0].worst, again.worst) < TOLERANCE

    def test_a_row_without_tokens_is_merged_with_a_long_one(self, subject) -> None:
        rows = [Batch.alone(subject, 0, 30), Batch(subject, subject.model.make_cache(), [1], [0])]
        batch = Batch.of(rows)
        batch.prepare([2, 9])
        batch.feed([2, 9])
        batch.finalize()
        batch.decode()
        assert batch.worst < TOLERANCE
