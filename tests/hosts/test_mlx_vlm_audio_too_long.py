"""Who hands over more than 30 s is told that the rest is not heard."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny_audio
from tests.hosts.contract import PatchContract, patched

extractors = pytest.importorskip("mlx_vlm.models.gemma4.audio_feature_extractor")

ID = "mlx_vlm.audio_too_long"


def extracted(sounds) -> list:
    made = extractors.Gemma4AudioFeatureExtractor()(sounds)
    return [np.asarray(part).tolist() for part in made["input_features"]]


class TestAudioTooLong(PatchContract):
    id = ID

    def untouched(self):
        return [
            extracted([tiny_audio.sound(9_000)]),
            extracted([tiny_audio.sound(9_000), tiny_audio.sound(800)]),
        ]


def test_it_is_told_and_cut_as_before() -> None:
    long = tiny_audio.sound(480_001)
    with patched(ID), pytest.warns(UserWarning, match="first 30 s"):
        heard = extracted([tiny_audio.sound(800), long])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*first 30 s")
        assert heard == extracted([tiny_audio.sound(800), long[:480_000]])
