"""Rows that leave a batch in mid-prefill go on as alone, and so do those that stay."""

from __future__ import annotations

import pytest

from tests.hosts.batches import Batch, CacheContract
from tests.hosts.parity import TOLERANCE

_COUNTS = [9, 2, 5]
_CHUNKS = ([4, 2, 4], [4, 0, 1], [1, 0, 0])  # of _COUNTS, 4 columns at a time


class TestRotatingExtractPending(CacheContract):
    id = "mlx_lm.rotating_extract_pending"

    @pytest.mark.parametrize("chunks", [1, 3])
    def test_extracted_rows_go_on_and_the_batch_does_not_notice(self, subject, chunks) -> None:
        batch = Batch.merged(subject)
        batch.prepare(_COUNTS)
        for chunk in _CHUNKS[:chunks]:
            batch.feed(chunk)
        for index in range(3):
            row = batch.extract(index)
            row.decode(2)
            row.feed([3])
            assert row.worst < TOLERANCE
        for chunk in _CHUNKS[chunks:]:
            batch.feed(chunk)
        batch.finalize()
        batch.decode(4)
        assert batch.worst < TOLERANCE

    @pytest.mark.parametrize("chunks", [1, 3])
    def test_rows_that_stay_go_on(self, subject, chunks) -> None:
        batch = Batch.merged(subject)
        batch.prepare(_COUNTS)
        for number, chunk in enumerate(_CHUNKS, start=1):
            batch.feed([chunk[row] for row in batch.rows])
            if number == chunks:
                batch.filter([2, 0])
        batch.finalize()
        batch.decode()
        assert batch.worst < TOLERANCE

    def test_rows_that_stay_in_a_prefill_with_padding_on_the_left_go_on(self, subject) -> None:
        batch = Batch(subject, subject.batch_caches([6, 0, 8]), [0, 1, 2], [0, 0, 0])
        batch.feed([0, 4, 0], padding_on="left")
        batch.filter([0, 2])
        batch.feed([2, 0], padding_on="left", width=4)
        batch.feed([4, 4])
        batch.decode(14)
        assert batch.worst < TOLERANCE

    def test_a_row_that_is_extracted_after_the_window_has_rotated_goes_on(self, subject) -> None:
        batch = Batch.left_padded(subject)
        batch.decode()
        for index in range(3):
            row = batch.extract(index)
            row.decode(2)
            row.feed([3])
            assert row.worst < TOLERANCE
