"""A sound without a soft token is refused by its length."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny_audio
from tests.hosts.contract import PatchContract, patched
from tests.hosts.hearing import Hearing, skip_unless_sounds_are_heard

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_empty"


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    skip_unless_sounds_are_heard()
    return Hearing(tmp_path_factory.mktemp("hearing"))


def extracted(*sounds):
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor

    made = Gemma4AudioFeatureExtractor()(*sounds)
    return [np.stack(made[name]).tolist() for name in ("input_features", "input_features_mask")]


class TestAudioEmpty(PatchContract):
    id = ID

    def untouched(self):
        sound = tiny_audio.sound(2000)
        two = np.stack([sound, sound])
        return [extracted(s) for s in (sound, sound.tolist(), [sound, sound[:700]], two)]


@pytest.mark.parametrize("samples", [0, 1, 160])
@pytest.mark.parametrize("others", [0, 1])
def test_it_is_refused_alone_and_beside_others(hearing, samples: int, others: int) -> None:
    utils = importlib.import_module("mlx_vlm.utils")
    sounds = [tiny_audio.sound(2000)] * others + [tiny_audio.sound(samples)]
    with patched(ID), pytest.raises(ValueError, match=f"a sound of {samples} sample.* too short"):
        utils.prepare_inputs(
            hearing.processor, audio=sounds, prompts="<|audio|>" * len(sounds) + "hear"
        )


def test_one_soft_token_is_enough(hearing) -> None:
    utils = importlib.import_module("mlx_vlm.utils")
    with patched(ID):
        made = utils.prepare_inputs(
            hearing.processor, audio=[tiny_audio.sound(161)], prompts="<|audio|>"
        )
    assert (made["input_ids"] == 505).sum().item() == 1
