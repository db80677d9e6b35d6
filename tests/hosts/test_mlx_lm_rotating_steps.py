"""Steps of one token and of several follow each other, and the rows of a batch go on as alone."""

from __future__ import annotations

import pytest

from tests.hosts.batches import Batch, CacheContract
from tests.hosts.parity import TOLERANCE


class TestRotatingSteps(CacheContract):
    id = "mlx_lm.rotating_steps"

    @pytest.mark.parametrize("lengths", [(40, 3), (16, 1)], ids=str)
    def test_steps_of_any_size_follow_each_other(self, subject, lengths) -> None:
        batch = Batch.left_padded(subject, lengths)
        for count in (1, 4, 1, 1, 2, 1, 7, 3):
            batch.feed([count] * 2)
        assert batch.worst < TOLERANCE

    @pytest.mark.parametrize("lengths", [(40, 3), (16, 1)], ids=str)
    def test_a_padded_step_of_one_token_is_one_of_several(self, subject, lengths) -> None:
        batch = Batch.left_padded(subject, lengths)
        batch.decode(2)
        batch.prepare([6, 2])
        for counts in ([1, 1], [3, 1], [1, 0], [1, 0]):
            batch.feed(counts)
        batch.finalize()
        batch.decode()
        assert batch.worst < TOLERANCE
