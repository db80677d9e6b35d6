"""A checkpoint with an audio tower hears as in transformers, original or converted."""

from __future__ import annotations

import importlib

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.gemma4 import tiny_audio
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.checkpoints import change
from tests.hosts.contract import PatchContract, patched
from tests.hosts.hearing import Hearing, reference, skip_unless_sounds_are_heard

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_conv_layout"


class TestAudioConvLayout(PatchContract):
    id = ID

    def untouched(self):
        model = tiny.hearing_model()
        made = model.sanitize(tiny_audio.weights(model.config.text_config.hidden_size))
        return [made, tiny.model("dense").sanitize({"model.norm.weight": mx.ones((3,))})]


@pytest.mark.parametrize("kind", ["original", "converted"])
def test_it_hears_as_in_transformers(tmp_path, kind: str) -> None:
    skip_unless_sounds_are_heard()
    with patched(ID):
        hearing = Hearing(tmp_path)
        if kind == "converted":
            tensors = dict(tree_flatten(hearing.model.parameters()))
            change(hearing.folder, tensors=lambda _: tensors, format="mlx")
            utils = importlib.import_module("mlx_vlm.utils")
            hearing.model, hearing.processor = utils.load(str(hearing.folder))
        expected = reference()["greedy_sound_first"].tolist()
        assert hearing.greedy("sound_first") == expected
