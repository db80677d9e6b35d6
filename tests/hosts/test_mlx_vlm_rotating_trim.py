"""A draft that mlx-vlm's Gemma 4 rejects past the window leaves nothing behind."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts import test_mlx_lm_rotating_trim
from tests.hosts.batches import Batch
from tests.hosts.parity import TOLERANCE


class TestRotatingTrim(test_mlx_lm_rotating_trim.TestRotatingTrim):
    id = "mlx_vlm.rotating_trim"

    @pytest.mark.parametrize("lengths", [(8,), (30,), (8, 12), (40, 21)], ids=str)
    def test_the_models_own_rollback_is_exact(self, subject, lengths) -> None:
        rollback = getattr(subject.model, "rollback_speculative_cache", None)
        if rollback is None:
            pytest.skip("gemma3n has none, Gemma 4 has one since 0.5.0")
        batch = Batch.left_padded(subject, lengths)
        batch.feed([4] * len(lengths))
        rollback(batch.layers, None, mx.array([0] * len(lengths)), 4)
        batch.lengths = [length - 3 for length in batch.lengths]
        batch.decode()
        assert batch.worst < TOLERANCE
