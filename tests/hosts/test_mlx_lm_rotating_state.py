"""A batch goes on from its saved caches as if it had never been saved."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.batches import Batch, CacheContract
from tests.hosts.parity import TOLERANCE


class TestRotatingState(CacheContract):
    id = "mlx_lm.rotating_state"

    def saved_and_loaded(self, layers: list, folder) -> list:
        from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

        file = str(folder / "cache.safetensors")
        save_prompt_cache(file, layers)
        return load_prompt_cache(file)

    @pytest.mark.parametrize("lengths", [(4, 9), (40, 21, 5)], ids=["within", "past"])
    def test_it_goes_on_after_it_was_saved(self, subject, lengths, tmp_path) -> None:
        batch = Batch.left_padded(subject, lengths)
        batch.decode(3)
        batch.layers = self.saved_and_loaded(batch.layers, tmp_path)
        batch.decode()
        batch.filter([1, 0])
        batch.prepare([3, 1])
        batch.feed([3, 1])
        batch.finalize()
        batch.layers = self.saved_and_loaded(batch.layers, tmp_path)
        batch.extract(0).decode(2)
        batch.decode(2)
        assert batch.worst < TOLERANCE

    def test_a_batch_without_tokens_has_a_state_to_start_from(self, subject, tmp_path) -> None:
        batch = Batch(subject, subject.batch_caches([2, 0]), [0, 1], [0, 0])
        mx.eval([layer.state for layer in batch.layers])
        batch.layers = self.saved_and_loaded(batch.layers, tmp_path)
        batch.feed([3, 5], padding_on="left")
        batch.decode()
        assert batch.worst < TOLERANCE

    def test_a_single_row_still_comes_back(self, subject, tmp_path) -> None:
        row = Batch.alone(subject, 0, 20)
        row.layers = self.saved_and_loaded(row.layers, tmp_path)
        row.decode()
        assert row.worst < TOLERANCE
