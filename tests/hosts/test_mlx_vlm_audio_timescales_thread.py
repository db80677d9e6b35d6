"""mlx_vlm.audio_timescales_thread: a model loaded in one thread hears in any other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny_audio
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")

ID = "mlx_vlm.audio_timescales_thread"


def load() -> Any:
    model = tiny.hearing_model()
    mx.eval(model.parameters())  # as the hosts do
    return model


def hear(model: Any) -> list:
    mel = mx.array(tiny_audio.sound(40 * 128)).reshape(1, 40, 128)
    rows, is_padding = model.audio_tower(mel, mx.zeros((1, 40), mx.bool_))
    return [rows.tolist(), is_padding.tolist()]


class TestAudioTimescalesThread(PatchContract):
    id = ID

    def untouched(self) -> Any:
        return hear(load())


def test_loaded_in_one_thread_it_hears_the_same_in_two_others() -> None:
    expected = hear(load())
    with patched(ID), ThreadPoolExecutor(1) as loader:
        model = loader.submit(load).result()
    for _ in range(2):
        with ThreadPoolExecutor(1) as generator:
            assert generator.submit(hear, model).result() == expected
