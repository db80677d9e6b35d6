"""A prompt may have several sounds; test_mlx_vlm_audio_rows.py compares the answers."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from mlx_gemma4_patches.patch import State
from tests.hosts.contract import PatchContract, patched, record, stock
from tests.hosts.hearing import Hearing, reference, skip_unless_sounds_are_heard

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_several"


class TestAudioSeveral(PatchContract):
    id = ID

    def untouched(self):
        utils = importlib.import_module("mlx_vlm.utils")
        given = []

        def processor(text=None, images=None, audio=None, **how):
            given.append([np.asarray(sound).tolist() for sound in audio])
            return {"input_ids": [[0]], "attention_mask": [[1]]}

        processor = _Other(processor)
        for count in (1, 2):  # another model's second clip stays where it was
            utils.prepare_inputs(
                processor, audio=[np.ones(3, np.float32)] * count, prompts="", return_tensors="np"
            )
        return given


class _Other:
    """A processor of another model."""

    def __init__(self, call):
        self.call, self.tokenizer = call, SimpleNamespace(pad_token="", eos_token="")

    def __call__(self, *args, text=None, images=None, audio=None, **how):
        return self.call(text, images, audio, **how)


def test_both_clips_are_in_the_prompt(tmp_path) -> None:
    skip_unless_sounds_are_heard()
    hearing = Hearing(tmp_path)
    with patched(ID):
        assert hearing.ids("sounds") == reference()["ids_sounds"].tolist()
    if record(ID).state is State.APPLIED:
        with stock(ID), pytest.raises(ValueError):
            hearing.ids("sounds")
