"""Gemma 4 12B hears all of a recording, as in transformers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.hearing import reference
from tests.reference.conversations import LENGTHS

unified = pytest.importorskip("mlx_vlm.models.gemma4_unified.processing_gemma4_unified")

ID = "mlx_vlm.audio_limit_unified"


def counted(lengths) -> list[int]:
    processor = SimpleNamespace(
        feature_extractor=unified.Gemma4UnifiedAudioFeatureExtractor(),
        audio_seq_length=750,
        audio_ms_per_token=40,
    )
    count = unified.Gemma4UnifiedProcessor._compute_audio_num_tokens
    return [count(processor, np.zeros(n, np.float32), 16_000) for n in lengths]


class TestAudioLimitUnified(PatchContract):
    id = ID

    def untouched(self):
        return counted([1, 640, 641, 16_000, 479_999, 480_000])


def test_sounds_have_as_many_soft_tokens_as_in_transformers() -> None:
    expected = reference()["unified_sound_tokens"].tolist()
    with patched(ID):
        assert counted(LENGTHS) == expected
    with stock(ID):
        assert counted(LENGTHS) != expected


def test_there_are_as_many_as_rows() -> None:
    extractor = unified.Gemma4UnifiedAudioFeatureExtractor()
    lengths = [480_001, 500_000, 960_000]
    with patched(ID):
        counts = counted(lengths)
    masks = [extractor([np.zeros(n, np.float32)])["input_features_mask"] for n in lengths]
    assert counts == [int(mask.sum()) for mask in masks]
