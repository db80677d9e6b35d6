"""Clips of different length are heard as each alone, in one prompt and in one batch."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import mlx.core as mx
import numpy as np
import pytest
from packaging.version import Version

from mlx_gemma4_patches.gemma4 import tiny_audio
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.hearing import Hearing, reference, skip_unless_sounds_are_heard
from tests.hosts.parity import distance
from tests.reference import conversations

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_rows"


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    skip_unless_sounds_are_heard()
    return Hearing(tmp_path_factory.mktemp("hearing"))


class TestAudioRows(PatchContract):
    id = ID

    def untouched(self):
        model = tiny.hearing_model()
        mel = mx.array(tiny_audio.sound(60 * 128)).reshape(1, 60, 128)
        heard = mx.arange(60)[None] < 50
        ids = mx.array([[2, *[model.config.audio_token_id] * 13, 106]])
        how = {"input_features": mel, "input_features_mask": heard}
        two = mx.concatenate([mel, mel])
        return [
            model.get_input_embeddings(ids, None, **how).inputs_embeds,
            model.get_input_embeddings(ids, None).inputs_embeds,
            # callers other than Gemma 4 have their rows of padding
            *model.audio_tower(two, mx.concatenate([~heard, mx.zeros((1, 60), mx.bool_)])),
        ]


@pytest.mark.parametrize("names", [("short", "long"), ("long", "short"), ("odd", "long", "short")])
def test_clips_have_the_soft_tokens_of_transformers(names) -> None:
    skip_unless_sounds_are_heard()
    from mlx_vlm.models.gemma4.audio_feature_extractor import Gemma4AudioFeatureExtractor

    expected = mx.concatenate([reference()[f"rows_{name}"] for name in names])
    sounds = [conversations.pcm(name).astype(np.float32) / 32768 for name in names]
    features = Gemma4AudioFeatureExtractor()(sounds)
    mel, heard = (mx.array(np.stack(features[f"input_features{end}"])) for end in ("", "_mask"))
    model = tiny.hearing_model()
    ids = mx.array([[model.config.audio_token_id] * len(expected)])
    how = {"input_features": mel, "input_features_mask": heard}
    with patched(ID):
        found = model.get_input_embeddings(ids, None, **how).inputs_embeds[0]
    assert distance(found, expected) < 1e-4
    with stock(ID):
        found = model.get_input_embeddings(ids, None, **how).inputs_embeds[0]
    assert distance(found, expected) > 0.1


@pytest.mark.parametrize("conversation", ["sounds", "sounds_apart", "sounds_turns", "all"])
def test_several_clips_are_answered_as_by_transformers(hearing, conversation: str) -> None:
    expected = reference()
    assert hearing.ids(conversation) == expected[f"ids_{conversation}"].tolist()
    assert hearing.greedy(conversation) == expected[f"greedy_{conversation}"].tolist()


def test_requests_with_clips_are_answered_together_as_alone(hearing) -> None:
    if Version(version("mlx-vlm")) < Version("0.7.3"):
        pytest.skip("this mlx-vlm does not answer requests with sounds together")
    generate = importlib.import_module("mlx_vlm.generate")
    texts = ["write down", "what is it", "again and again"]
    files = [str(hearing.folder / f"{name}.wav") for name in ("short", "long", "odd")]
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")

    def alone(text: str, file: str) -> str:
        prompt = prompt_utils.apply_chat_template(
            hearing.processor, hearing.model.config, text, num_audios=1
        )
        how = {"audio": [file], "max_tokens": 6, "temperature": 0.0}
        parts = generate.stream_generate(hearing.model, hearing.processor, prompt, **how)
        return "".join(part.text for part in parts)

    expected = [alone(text, file) for text, file in zip(texts, files, strict=True)]
    assert len(set(expected)) == 3
    together = generate.batch_generate(
        hearing.model, hearing.processor, prompts=texts, audios=files, max_tokens=6
    )
    assert together.texts == expected
