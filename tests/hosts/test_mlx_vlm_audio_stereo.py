"""Stereo files are as long as mono ones, at every rate."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny_audio
from mlx_gemma4_patches.patches.mlx_vlm import audio_stereo
from tests.hosts.contract import PatchContract, patched
from tests.hosts.hearing import Hearing
from tests.reference.conversations import write_sound

pytest.importorskip("mlx_vlm")
pytest.importorskip("mlx_audio")
pytest.importorskip("scipy", reason="mlx-audio cannot resample without scipy")

ID = "mlx_vlm.audio_stereo"
SOUND = (tiny_audio.sound(8000) * 32768).astype(np.int16)


def loaded(file) -> np.ndarray:
    return importlib.import_module("mlx_vlm.utils").load_audio(str(file), sr=16_000)


@pytest.fixture(autouse=True)
def files(tmp_path):
    for rate in (8000, 16_000, 44_100):
        write_sound(tmp_path / f"mono{rate}.wav", SOUND, rate)
        write_sound(tmp_path / f"stereo{rate}.wav", np.stack([SOUND, SOUND], -1), rate)
    return tmp_path


class TestAudioStereo(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _files(self, files) -> None:
        self.files = files

    def untouched(self):
        names = ("mono8000", "mono16000", "mono44100", "stereo16000")
        return [loaded(self.files / f"{name}.wav").tolist() for name in names]


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_a_gemma4_hears_two_equal_channels_as_one(files, rate: int) -> None:
    token = audio_stereo._for_gemma4.set(True)
    try:
        with patched(ID):
            stereo, mono = (loaded(files / f"{kind}{rate}.wav") for kind in ("stereo", "mono"))
    finally:
        audio_stereo._for_gemma4.reset(token)
    assert stereo.shape == mono.shape == (math.ceil(8000 * 16_000 / rate),)
    assert np.abs(stereo - mono).max() < 1e-6


def test_a_stereo_file_has_the_soft_tokens_of_its_length(files, tmp_path_factory) -> None:
    hearing = Hearing(tmp_path_factory.mktemp("hearing"))
    utils = importlib.import_module("mlx_vlm.utils")
    with patched(ID):
        made = utils.prepare_inputs(
            hearing.processor, audio=[str(files / "stereo44100.wav")], prompts="<|audio|>"
        )
    assert made["input_features"].shape[1] <= 20  # 0.18 s, and its padding


def test_resampled_it_is_close_to_the_same_sound(files) -> None:
    t = np.arange(8000) / 44_100
    wave = (0.5 * 32767 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    write_sound(files / "tone.wav", np.stack([wave, wave], -1), 44_100)
    token = audio_stereo._for_gemma4.set(True)
    try:
        with patched(ID):
            heard = loaded(files / "tone.wav")
    finally:
        audio_stereo._for_gemma4.reset(token)
    exact = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 16_000)
    assert np.abs(heard - exact)[200:-200].max() < 1e-2
