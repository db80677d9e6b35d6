"""Batched decode of unequal prompts equals the same prompts alone, on mlx-vlm's own caches too."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.doctor import other_models
from tests.hosts import test_mlx_lm_cache_offset
from tests.hosts.batches import Batch, Subject, cache_module
from tests.hosts.contract import patched, record, stock
from tests.hosts.parity import TOLERANCE


class TestCacheOffset(test_mlx_lm_cache_offset.TestCacheOffset):
    id = "mlx_vlm.cache_offset"

    def test_attention_that_captures_the_offset_decodes_as_alone(self) -> None:
        # mlx-vlm's Gemma models take copies; mlx-lm's gemma3n does not
        pytest.importorskip("mlx_lm")
        subject = Subject(other_models.gemma3n(), cache_module("mlx_vlm"))
        with patched(self.id):
            batch = Batch.left_padded(subject)
            batch.decode()
        assert batch.worst < TOLERANCE
        if record(self.id).state.is_on:
            with stock(self.id):
                batch = Batch.left_padded(subject)
                batch.decode()
            assert batch.worst > 1
