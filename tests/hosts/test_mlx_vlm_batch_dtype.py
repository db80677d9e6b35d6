"""A batch that requests join keeps its dtype and its size, on mlx-vlm's own caches."""

from __future__ import annotations

from tests.hosts import test_mlx_lm_batch_dtype


class TestBatchDtype(test_mlx_lm_batch_dtype.TestBatchDtype):
    id = "mlx_vlm.batch_dtype"
