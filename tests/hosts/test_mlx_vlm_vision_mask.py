"""What the large models of mlx-vlm see of images, against transformers."""

from __future__ import annotations

import importlib

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny, vision_mask
from mlx_gemma4_patches.gemma4.placeholders import Placeholders
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import embedded_by_server, processor
from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE, distance
from tests.hosts.pictures import PIXELS, PROMPTS, Pictured

pytest.importorskip("mlx_vlm")


@pytest.fixture(scope="module", params=tiny.SHAPES)
def seeing(request: pytest.FixtureRequest) -> Pictured:
    return Pictured(request.param)


class TestVisionMask(PatchContract):
    id = "mlx_vlm.vision_mask"

    def untouched(self):
        made = []
        for shape, prompt in (("dense", "40"), ("moe", "8"), ("e2b", "images")):
            seeing = Pictured(shape)
            ids, cache = seeing.ids(prompt), seeing.language_model.make_cache()
            made += [seeing.logits(ids, cuts=(5,), cache=cache), seeing.model(ids[:, :5]).logits]
        types = mx.zeros((2, 20), mx.int32)
        rows = mx.array([tiny.prompt(20), [0] * 9 + tiny.prompt(11)])
        made.append(Pictured("dense").language_model(rows, mm_token_type_ids=types).logits)
        return made


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_image_prompt_has_the_logits_of_transformers(seeing: Pictured, prompt: str) -> None:
    ids, expected = seeing.ids(prompt), seeing.expected[f"logits_{prompt}"]
    cached = seeing.logits(ids, cache=seeing.language_model.make_cache())
    alone = seeing.logits(ids)
    through_the_model = seeing.model(ids, PIXELS).logits[0]
    for logits in (cached, alone, through_the_model):
        assert distance(logits[-len(expected) :], expected) < TOLERANCE


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_after_images_are_those_of_transformers(
    seeing: Pictured, prompt: str
) -> None:
    expected = seeing.expected[f"greedy_{prompt}"].tolist()
    assert seeing.greedy(seeing.ids(prompt), len(expected)) == expected


@pytest.mark.parametrize("cuts", [(3,), (6,), (25,), (6, 25), (20, 56), (7, 19, 31, 55)])
def test_a_prompt_in_parts_that_split_no_image_is_the_whole(
    seeing: Pictured, cuts: tuple[int, ...]
) -> None:
    ids = seeing.ids("images")  # they are 7..18 and 31..54
    logits = seeing.logits(ids, cuts, seeing.language_model.make_cache())
    assert distance(logits, seeing.expected["logits_images"]) < TOLERANCE
    again = seeing.logits(ids, cuts, seeing.language_model.make_cache())
    assert mx.array_equal(logits, again)


def test_token_types_of_the_whole_prompt_beside_a_part_do_no_harm(seeing: Pictured) -> None:
    ids, cache = seeing.ids("images"), seeing.language_model.make_cache()
    types = (ids == seeing.model.config.image_token_id).astype(mx.int32)
    made = [
        seeing.language_model(
            **seeing.embedded(ids, start, stop), cache=cache, mm_token_type_ids=types
        ).logits[0]
        for start, stop in ((0, 25), (25, 57), (57, None))
    ]
    assert distance(mx.concatenate(made), seeing.expected["logits_images"]) < TOLERANCE


def test_rows_with_and_without_images_in_one_batch_are_as_alone() -> None:
    from mlx_vlm.models.cache import BatchKVCache, BatchRotatingKVCache

    seeing = Pictured("dense")
    prompts = [seeing.ids("images"), seeing.ids("40"), seeing.ids("adjacent")]
    length = max(ids.shape[1] for ids in prompts)
    padding = [length - ids.shape[1] for ids in prompts]
    cache = [
        BatchRotatingKVCache(layer.max_size, padding)
        if hasattr(layer, "max_size")
        else BatchKVCache(padding)
        for layer in seeing.language_model.make_cache()
    ]
    made = seeing.language_model(**seeing.batch(prompts), cache=cache).logits
    following = mx.array([[200], [201], [202]])
    then = seeing.language_model(following, cache=cache).logits
    for row, (ids, pad) in enumerate(zip(prompts, padding, strict=True)):
        alone = seeing.language_model.make_cache()
        assert distance(made[row, pad:], seeing.logits(ids, cache=alone)) < TOLERANCE
        next_alone = seeing.language_model(following[row : row + 1], cache=alone).logits
        assert distance(then[row], next_alone[0]) < TOLERANCE


def test_a_cached_prompt_is_followed_by_one_with_an_image(seeing: Pictured) -> None:
    first, second = seeing.ids("40"), seeing.ids("adjacent")
    whole = mx.concatenate([first, second], axis=1)
    cache = seeing.language_model.make_cache()
    logits = seeing.logits(whole, (first.shape[1],), cache)
    assert distance(logits, seeing.logits(whole)) < TOLERANCE


def test_the_mask_is_made_once_for_a_prompt_with_images_and_never_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    original = vision_mask.sliding_mask
    monkeypatch.setattr(vision_mask, "sliding_mask", lambda *a: made.append(1) or original(*a))
    seeing = Pictured("dense")
    seeing.logits(seeing.ids("images"))
    assert len(made) == 1
    seeing.logits(seeing.ids("40"))
    seeing.language_model(mx.array([[502]]), cache=seeing.language_model.make_cache())
    small = Pictured("e2b")  # is not among the models that see images as a whole
    small.logits(small.ids("images"))
    assert len(made) == 1


def test_a_text_that_is_read_in_steps_is_not_searched_for_images_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate = importlib.import_module("mlx_vlm.generate")
    if not hasattr(generate, "PromptProcessingBatch"):
        pytest.skip("this mlx-vlm has no batches of prompts, and each step is searched")
    seeing, original = Pictured("dense"), Placeholders.seen
    ids = seeing.ids("40")[0].tolist()
    embedded = embedded_by_server(seeing.model, ids, None)

    def read(size: int) -> tuple[int, list[int]]:
        """How often the prompt is searched, read so many tokens at a time; and the answer."""
        seen: list[int] = []
        monkeypatch.setattr(Placeholders, "seen", lambda *a: seen.append(1) or original(*a))
        generator = generate.BatchGenerator(
            seeing.language_model, processor(), prefill_step_size=size, compute_logprobs=False
        )
        generator.insert([ids], 4, prompt_kwargs=[dict(embedded)])
        answer = []
        while generator.has_work:
            answer += [int(part.token) for part in generator.next()[1]]
        return len(seen), answer

    assert read(4) == read(20)
