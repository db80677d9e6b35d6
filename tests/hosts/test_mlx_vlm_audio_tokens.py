"""Sounds have as many soft tokens as transformers gives them, and are heard as there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.hearing import Hearing, reference, skip_unless_sounds_are_heard
from tests.reference.conversations import LENGTHS

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_tokens"


def counted(lengths) -> list[int]:
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor
    from mlx_vlm.models.gemma4.processing_gemma4 import Gemma4Processor

    processor = SimpleNamespace(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        audio_seq_length=750,
        audio_ms_per_token=40,
    )
    count = Gemma4Processor._compute_audio_num_tokens
    return [count(processor, np.zeros(n, np.float32), 16_000) for n in lengths]


class TestAudioTokens(PatchContract):
    id = ID

    def untouched(self):
        return counted([161, 640, 16_000, 23_456, 40_000, 480_001])


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    skip_unless_sounds_are_heard()
    return Hearing(tmp_path_factory.mktemp("hearing"))


def test_sounds_have_as_many_as_in_transformers() -> None:
    skip_unless_sounds_are_heard()
    expected = reference()["sound_tokens"].tolist()
    with patched(ID):
        assert counted(LENGTHS) == expected
    with stock(ID):
        assert counted(LENGTHS) != expected


@pytest.mark.parametrize("conversation", ["sound", "sound_first", "sound_between", "sound_before"])
def test_a_sound_is_answered_as_by_transformers(hearing: Hearing, conversation: str) -> None:
    expected = reference()
    with patched(ID):
        assert hearing.ids(conversation) == expected[f"ids_{conversation}"].tolist()
        assert hearing.greedy(conversation) == expected[f"greedy_{conversation}"].tolist()
    with stock(ID):
        assert hearing.ids(conversation) != expected[f"ids_{conversation}"].tolist()
