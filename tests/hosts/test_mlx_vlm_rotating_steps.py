"""Steps of one token and of several follow each other in a batch, on mlx-vlm's own caches."""

from __future__ import annotations

from tests.hosts import test_mlx_lm_rotating_steps


class TestRotatingSteps(test_mlx_lm_rotating_steps.TestRotatingSteps):
    id = "mlx_vlm.rotating_steps"
