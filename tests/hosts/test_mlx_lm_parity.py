from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.parity import Parity


class TestParity(Parity):
    host = "mlx_lm"

    def model(self, shape: str) -> Any:
        return text_model(shape)

    def cache(self, model: Any) -> list[Any]:
        return model.make_cache()

    def logits(self, model: Any, ids: mx.array, cache: list[Any] | None) -> mx.array:
        return model(ids, cache=cache)
