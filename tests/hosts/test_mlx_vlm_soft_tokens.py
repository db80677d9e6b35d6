"""Soft tokens of mlx-vlm 0.4.3; test_mlx_vlm_vision_mask.py compares images with transformers."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract
from tests.hosts.pictures import Pictured

pytest.importorskip("mlx_vlm")


class TestSoftTokens(PatchContract):
    id = "mlx_vlm.soft_tokens"

    def untouched(self):
        made = []
        for shape in ("e2b", "dense"):
            text = Pictured(shape)
            ids = text.ids("40")
            made += [text.language_model(ids).logits, text.logits(ids), text.model(ids).logits]
        return made


def test_placeholders_without_an_image_are_embedded_as_text() -> None:
    text = Pictured("dense")
    ids = text.ids("images")
    embedded = text.model.get_input_embeddings(ids, None).inputs_embeds
    table = text.language_model.model.embed_tokens
    assert mx.allclose(embedded, table(ids) * text.language_model.model.embed_scale)
