"""Image prompts of mlx-vlm that are longer than a prefill step."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE, distance
from tests.hosts.pictures import PROMPTS, Pictured

pytest.importorskip("mlx_vlm")


class TestVisionChunks(PatchContract):
    id = "mlx_vlm.vision_chunks"

    def untouched(self):
        text, small = Pictured("dense"), Pictured("e2b")
        return [
            text.first_logprobs(text.ids("40"), prefill_step_size=8),
            small.first_logprobs(small.ids("images"), prefill_step_size=80),
        ]


@pytest.mark.parametrize("shape", ["moe", "dense"])
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("step", [1, 8, 16, 21, 512])
def test_any_step_size_gives_the_tokens_of_transformers(shape: str, prompt: str, step: int) -> None:
    seeing = Pictured(shape)
    expected = seeing.expected[f"greedy_{prompt}"].tolist()
    assert seeing.greedy(seeing.ids(prompt), len(expected), prefill_step_size=step) == expected


def test_an_image_prompt_with_audio_is_in_one_piece_too() -> None:
    seeing = Pictured("dense")
    ids = mx.concatenate([seeing.ids("images"), mx.array([[505, 505, 300]])], axis=1)
    types = (ids == 502).astype(mx.int32) + 3 * (ids == 505)
    made = [
        seeing.first_logprobs(ids, prefill_step_size=step, mm_token_type_ids=types)
        for step in (8, 512)
    ]
    assert distance(*made) < TOLERANCE


def test_text_is_still_prefilled_in_parts() -> None:
    from mlx_vlm.models.cache import KVCache

    parts = []

    class Watched(KVCache):
        def update_and_fetch(self, keys, values):
            parts.append(keys.shape[2])
            return super().update_and_fetch(keys, values)

    seeing = Pictured("dense")
    seeing.greedy(seeing.ids("images"), 1)
    cache = seeing.language_model.make_cache()
    cache[2] = Watched()
    seeing.first_logprobs(seeing.ids("40"), prefill_step_size=16, prompt_cache=cache)
    assert parts[:2] == [16, 16]


@pytest.mark.parametrize("step", [8, 512])
def test_a_batch_of_prompts_with_and_without_images_is_as_alone(step: int) -> None:
    seeing = Pictured("dense")
    prompts = [seeing.ids("images"), seeing.ids("40"), seeing.ids("adjacent")]
    alone = [seeing.greedy(ids, 6, prefill_step_size=None) for ids in prompts]
    assert _batch_generated(seeing, prompts, 6, step) == alone


def _batch_generated(seeing: Pictured, prompts: list, count: int, step: int) -> list[list[int]]:
    """What ``BatchGenerator`` says after each of ``prompts``, (1, L) ids."""
    generate = importlib.import_module("mlx_vlm.generate")
    tokenizer = SimpleNamespace(stopping_criteria=_Never())
    batch = generate.BatchGenerator(
        seeing.language_model,
        tokenizer,
        max_tokens=count,
        prefill_step_size=step,
        prefill_batch_size=len(prompts),
        completion_batch_size=len(prompts),
    )
    rows = [ids[0].tolist() for ids in prompts]
    if hasattr(batch, "_process_prompts"):  # up to 0.4.4, shortest first, all at once
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        uids = batch.insert([rows[row] for row in order])
        given = seeing.batch([prompts[row] for row in order])
        said = {uid: [] for uid in uids}
        while not all(len(tokens) == count for tokens in said.values()):
            for response in batch.next(inputs_embeds=given["inputs_embeds"]):
                said[response.uid].append(response.token)
        return [said[uids[order.index(row)]] for row in range(len(rows))]
    parts = [seeing.embedded(ids) for ids in prompts]
    given = [{name: part[name] for name in part if name != "inputs"} for part in parts]
    uids = batch.insert(rows, prompt_kwargs=given)
    said = {uid: [] for uid in uids}
    while batch.has_work:
        for response in batch.next()[1]:
            said[response.uid].append(response.token)
    batch.close()
    return [said[uid] for uid in uids]


class _Never:
    """A stopping criterion."""

    def add_eos_token_ids(self, *_: object) -> None:
        pass

    def __call__(self, *_: object) -> bool:
        return False
