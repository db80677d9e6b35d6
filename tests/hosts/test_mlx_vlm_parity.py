from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_gemma4_patches.hosts.mlx_vlm import tiny as mlx_vlm_tiny
from tests.hosts.parity import Parity


class TestParity(Parity):
    host = "mlx_vlm"

    def model(self, shape: str) -> Any:
        return mlx_vlm_tiny.model(shape)

    def cache(self, model: Any) -> list[Any]:
        return model.language_model.make_cache()

    def logits(self, model: Any, ids: mx.array, cache: list[Any] | None) -> mx.array:
        return model.language_model(ids, cache=cache).logits
