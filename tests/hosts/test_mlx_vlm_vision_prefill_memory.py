"""Of which positions mlx-vlm computes logits when a prompt has images."""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE, distance
from tests.hosts.pictures import Pictured

pytest.importorskip("mlx_vlm")


class TestVisionPrefillMemory(PatchContract):
    id = "mlx_vlm.vision_prefill_memory"

    def untouched(self):
        seeing = Pictured("dense")
        return [
            seeing.logits(seeing.ids("images")),
            seeing.first_logprobs(seeing.ids("40"), prefill_step_size=None),
            seeing.greedy(seeing.ids("images"), 4),
        ]


@pytest.fixture
def seeing() -> Pictured:
    return Pictured("dense")


def test_who_calls_the_model_gets_the_logits_of_all_positions(seeing: Pictured) -> None:
    seeing.greedy(seeing.ids("images"), 2)  # whatever happened before
    ids, expected = seeing.ids("images"), seeing.expected["logits_images"]
    assert distance(seeing.logits(ids), expected) < TOLERANCE
    hidden = seeing.language_model.model(seeing.ids("40"))
    assert hidden.shape[1] == 40


def test_an_image_prompt_takes_the_memory_of_one_row_of_logits(seeing: Pictured) -> None:
    table = seeing.language_model.model.embed_tokens
    # so that logits of all positions would not go unseen: 68 rows of 32768
    table.weight = mx.concatenate([table.weight, mx.zeros((32768 - 512, 192))])
    ids = seeing.ids("images")
    mx.eval(seeing.model.parameters())
    seeing.first_logprobs(ids)  # what is made once
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    seeing.first_logprobs(ids)
    all_logits = 4 * ids.shape[1] * 32768
    assert mx.get_peak_memory() - before < all_logits


def test_rows_padded_on_the_right_are_read_at_their_own_end(seeing: Pictured) -> None:
    generate: Any = importlib.import_module("mlx_vlm.generate")
    if not hasattr(generate, "PromptProcessingBatch"):
        pytest.skip("up to 0.4.4 rows are padded on the left only")
    from mlx_vlm.models.cache import BatchKVCache, BatchRotatingKVCache

    prompts = [seeing.ids("images"), seeing.ids("adjacent")]
    lengths = [ids.shape[1] for ids in prompts]
    padding = [max(lengths) - length for length in lengths]
    cache = [
        BatchRotatingKVCache(layer.max_size, [0, 0])
        if hasattr(layer, "max_size")
        else BatchKVCache([0, 0])
        for layer in seeing.language_model.make_cache()
    ]
    embeddings = [
        mx.pad(seeing.embedded(ids)["inputs_embeds"], [(0, 0), (0, pad), (0, 0)])
        for ids, pad in zip(prompts, padding, strict=True)
    ]
    batch = generate.PromptProcessingBatch(
        seeing.language_model,
        [0, 1],
        [ids[0].tolist() for ids in prompts],
        [2, 2],
        mx.concatenate(embeddings),
        {},
        prefill_step_size=None,
        warm_cache=cache,
        right_pad_per_row=padding,
        suffix_lens=lengths,
    )
    seen = []

    def sampler(logprobs: mx.array) -> mx.array:
        seen.append(logprobs)
        return mx.argmax(logprobs, axis=-1)

    batch.generate(sampler, lambda token: False)
    for row, ids in enumerate(prompts):
        assert distance(seen[0][row], seeing.first_logprobs(ids)) < TOLERANCE
