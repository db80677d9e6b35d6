"""What every host owes on text: transformers' logits and tokens, however the prompt is fed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny

REFERENCE = Path(__file__).parent.parent / "reference"
# of logits up to 12 in float32; rounding alone gives 1e-4
TOLERANCE = 1e-3


def reference(shape: str) -> dict[str, mx.array]:
    """transformers' numbers for one shape, as tests/reference/make.py describes them."""
    return mx.load(str(REFERENCE / f"{shape}.safetensors"))


def distance(left: mx.array, right: mx.array) -> float:
    return mx.abs(left - right).max().item()


@pytest.mark.parametrize("shape", tiny.SHAPES)
class Parity:
    host: str

    def model(self, shape: str) -> Any:
        raise NotImplementedError

    def cache(self, model: Any) -> list[Any]:
        raise NotImplementedError

    def logits(self, model: Any, ids: mx.array, cache: list[Any] | None) -> mx.array:
        """(1, L) ids -> (1, L, vocabulary)."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _host_has_gemma4(self) -> None:
        pytest.importorskip(self.host)
        if importlib.util.find_spec(f"{self.host}.models.gemma4") is None:
            pytest.skip(f"this {self.host} has no Gemma 4")

    def in_chunks(self, model: Any, ids: mx.array, chunk: int) -> mx.array:
        cache = self.cache(model)
        starts = range(0, ids.size, chunk)
        return mx.concatenate(
            [self.logits(model, ids[None, i : i + chunk], cache)[0] for i in starts]
        )

    @pytest.mark.parametrize("length", [8, 40])
    def test_a_prompt_has_the_logits_of_transformers(self, shape: str, length: int) -> None:
        expected, model = reference(shape), self.model(shape)
        ids = expected[f"ids_{length}"]
        logits = self.logits(model, ids[None], None)[0]
        assert distance(logits, expected[f"logits_{length}"]) < TOLERANCE

    @pytest.mark.parametrize("length", [8, 40])
    @pytest.mark.parametrize("chunk", [1, 7, 40])
    def test_the_cache_and_the_chunks_change_nothing(
        self, shape: str, length: int, chunk: int
    ) -> None:
        model, ids = self.model(shape), reference(shape)[f"ids_{length}"]
        whole = self.logits(model, ids[None], None)[0]
        assert distance(self.in_chunks(model, ids, chunk), whole) < TOLERANCE

    @pytest.mark.parametrize("length", [8, 40])
    def test_greedy_tokens_are_those_of_transformers(self, shape: str, length: int) -> None:
        expected, model = reference(shape), self.model(shape)
        cache, following = self.cache(model), expected[f"ids_{length}"]
        tokens = []
        for _ in range(expected[f"greedy_{length}"].size):
            following = mx.argmax(self.logits(model, following[None], cache)[0, -1:], axis=-1)
            tokens.append(following.item())
        assert tokens == expected[f"greedy_{length}"].tolist()
