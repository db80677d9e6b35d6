"""Gemma 4 12B of mlx-vlm, whose text is that of the others, called as a whole."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE, distance
from tests.hosts.pictures import PROMPTS, Pictured

pytest.importorskip("mlx_vlm.models.gemma4_unified")


@pytest.fixture
def unified():
    return tiny.unified_model()


class TestVisionMaskUnified(PatchContract):
    id = "mlx_vlm.vision_mask_unified"

    def untouched(self):
        ids = Pictured("dense").ids("40")
        return [tiny.unified_model()(ids).logits, tiny.unified_model().language_model(ids).logits]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_image_prompt_has_the_logits_of_transformers(unified, prompt: str) -> None:
    seeing = Pictured("dense")
    ids, expected = seeing.ids(prompt), seeing.expected[f"logits_{prompt}"]
    embeddings = seeing.embedded(ids)["inputs_embeds"]
    made = SimpleNamespace(inputs_embeds=embeddings, per_layer_inputs=None)
    unified.get_input_embeddings = lambda **_: made
    for logits in (
        unified(ids).logits,
        unified.language_model(ids, inputs_embeds=embeddings).logits,
    ):
        assert distance(logits[0, -len(expected) :], expected) < TOLERANCE


def test_without_ids_nothing_changes(unified) -> None:
    embeddings = mx.ones((1, 5, 192))
    made = SimpleNamespace(inputs_embeds=embeddings, per_layer_inputs=None)
    unified.get_input_embeddings = lambda **_: made
    logits = unified.language_model(None, inputs_embeds=embeddings).logits
    assert mx.array_equal(unified().logits, logits)
