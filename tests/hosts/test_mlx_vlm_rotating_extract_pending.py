"""Rows that leave a batch in mid-prefill go on as alone, on mlx-vlm's own caches."""

from __future__ import annotations

from tests.hosts import test_mlx_lm_rotating_extract_pending


class TestRotatingExtractPending(test_mlx_lm_rotating_extract_pending.TestRotatingExtractPending):
    id = "mlx_vlm.rotating_extract_pending"
