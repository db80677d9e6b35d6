"""The audio tower makes of sounds what transformers makes of them."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny_audio
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract, patched
from tests.hosts.hearing import reference, skip_unless_sounds_are_heard
from tests.hosts.parity import distance
from tests.reference import conversations

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_mask"


class TestAudioMask(PatchContract):
    id = ID

    def untouched(self):
        from mlx_vlm.models.gemma4.audio import AudioEncoder

        # a tower whose frames hear themselves alone has no frame to lose
        config = SimpleNamespace(**{**tiny_audio.CONFIG, "attention_context_left": 1})
        model = tiny.hearing_model()
        mel = mx.array(tiny_audio.sound(40 * 128)).reshape(1, 40, 128)
        # ten soft tokens: no frame has more before it than the window holds
        return [
            AudioEncoder._build_causal_valid_mask(SimpleNamespace(config=config)).shape,
            *model.audio_tower(mel, mx.zeros((1, 40), mx.bool_)),
        ]


@pytest.mark.parametrize("name", ["short", "long", "odd"])
def test_sounds_have_the_soft_tokens_of_transformers(name: str) -> None:
    skip_unless_sounds_are_heard()
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor

    sound = conversations.pcm(name).astype(np.float32) / 32768
    features = Gemma4AudioFeatureExtractor()(sound)
    mel, heard = (mx.array(np.stack(features[f"input_features{end}"])) for end in ("", "_mask"))
    model = tiny.hearing_model()
    with patched(ID):
        rows, is_padding = model.audio_tower(mel, ~heard)
    expected = reference()[f"rows_{name}"]
    assert (~is_padding).sum().item() == len(expected)
    assert distance(model.embed_audio(rows)[0, : len(expected)], expected) < 1e-4
