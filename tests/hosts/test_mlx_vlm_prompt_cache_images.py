"""A conversation with images in a ``PromptCacheState`` is answered as if it were new.

The answers to the stored prompts are those of transformers.
"""

from __future__ import annotations

import importlib

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.patches.mlx_vlm import prompt_cache_images
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import reference

ID = "mlx_vlm.prompt_cache_images"
TEXT = tiny.prompt(60)
ONE, OTHER = (mx.array(tiny.image(2, 3, seed)) for seed in (1, 2))
PICTURE = [500, *[502] * 6, 501]
END, MORE = TEXT[50:53], TEXT[53:57]

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def new_state():
    found = getattr(importlib.import_module("mlx_vlm.generate"), "PromptCacheState", None)
    if found is None:
        pytest.skip("this mlx-vlm keeps no prompt caches")
    return found()


@pytest.fixture(scope="module", params=["e2b", "dense"])
def loaded(request, tmp_path_factory):
    new_state()  # or skip
    return answers.load(request.param, tmp_path_factory.mktemp(request.param))


def answer(loaded, ids, pictures, limit=4, **how):
    if pictures:
        how["pixel_values"] = mx.stack(pictures)
    return loaded.answer(ids, limit, **how)


class TestPromptCacheImages(PatchContract):
    id = ID

    def untouched(self):
        made, state = prompt_cache_images.model("e2b"), new_state()
        subject = answers.Loaded(made, prompt_cache_images.processor())
        said = subject.answer(TEXT[:20], 6, prompt_cache_state=state)
        caches = state.cache
        more = TEXT[:20] + said + TEXT[20:24]
        said = subject.answer(more, 6, prompt_cache_state=state)
        assert state.cache is caches
        return [said, state.token_ids, caches[0].state]


# what is said first, its pictures; what follows the answer, and the pictures then
CONVERSATIONS = {
    "the same": ([*PICTURE], [ONE], [], [ONE]),
    "another": ([*PICTURE], [ONE], [], [OTHER]),
    "none": ([*PICTURE], [ONE], [], []),
    "one more": ([*PICTURE], [ONE], [*PICTURE], [ONE, OTHER]),
    "a first": ([], [], [*PICTURE], [ONE]),
    "other order": ([*PICTURE, TEXT[40], *PICTURE], [ONE, OTHER], [], [OTHER, ONE]),
    "two the same": ([*PICTURE, TEXT[40], *PICTURE], [ONE, OTHER], [], [ONE, OTHER]),
    "another second": ([*PICTURE, TEXT[40], *PICTURE], [ONE, ONE], [], [ONE, OTHER]),
}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_conversation_is_answered_as_if_it_were_new(loaded, conversation):
    first, its_pictures, further, pictures = CONVERSATIONS[conversation]
    prompt = [*TEXT[:10], *first, *END]  # past the window
    with patched(ID):
        state = new_state()
        said = answer(loaded, prompt, its_pictures, prompt_cache_state=state)
        caches = state.cache
        prompt += [*said, *further, *MORE]
        again = answer(loaded, prompt, pictures, prompt_cache_state=state)
        assert again == answer(loaded, prompt, pictures)
        if conversation.endswith("the same"):
            assert state.cache is caches  # a fresh run makes its own
        # and goes on from there
        prompt += [*again, *TEXT[:3]]
        assert answer(loaded, prompt, pictures, prompt_cache_state=state) == answer(
            loaded, prompt, pictures
        )


@pytest.mark.parametrize("changed", [False, True])
def test_the_text_before_a_picture_is_reused(loaded, changed):
    """Within the window; hosts since 0.6.3 read prompts with a picture to come afresh."""
    prompt, pictures = [*TEXT[:3], *PICTURE], [OTHER if changed else ONE]
    with patched(ID):
        state = new_state()
        answer(loaded, [*prompt, TEXT[3]], [ONE], 1, prompt_cache_state=state)
        fork = [*prompt, TEXT[4]]
        said = answer(loaded, fork, pictures, prompt_cache_state=state)
        assert said == answer(loaded, fork, pictures)


def test_the_answers_are_those_of_transformers(tmp_path):
    new_state()  # or skip
    for shape in tiny.SHAPES:
        loaded, expected = answers.load(shape, tmp_path / shape), reference(shape)
        pixels = [mx.array(tiny.image(3, 4, seed=0)), mx.array(tiny.image(6, 4, seed=1))]
        ids, greedy = expected["ids_images"].tolist(), expected["greedy_images"].tolist()
        with patched(ID):
            state, how = new_state(), {"pixel_values": pixels}
            wrong = [part[:, ::-1] for part in pixels]
            loaded.answer(ids, 4, prompt_cache_state=state, pixel_values=wrong)
            for start, stop in ((0, 6), (6, 12), (12, 24)):
                part = loaded.answer(ids + greedy[:start], stop - start, **how)
                assert part == greedy[start:stop]
                again = loaded.answer(
                    ids + greedy[:start], stop - start, prompt_cache_state=state, **how
                )
                assert again == part


def test_an_answer_that_was_stopped_spoils_nothing(loaded):
    prompt = [*TEXT[:2], *PICTURE, *END]
    with patched(ID):
        state = new_state()
        said = answer(loaded, prompt, [ONE], prompt_cache_state=state)
        further = [*prompt, *said, *MORE]
        for pictures in ([OTHER], [ONE]):
            how = {"pixel_values": mx.stack(pictures), "prompt_cache_state": state}
            stopped = loaded.stream(further, **how)
            next(stopped)
            stopped.close()
        for pictures in ([ONE], [OTHER], [ONE]):
            again = answer(loaded, further, pictures, prompt_cache_state=state)
            assert again == answer(loaded, further, pictures)


def test_two_chats_at_once_keep_their_pictures(loaded):
    prompt = [*PICTURE, *END]
    with patched(ID):
        chats = [(new_state(), ONE), (new_state(), OTHER)]
        streams = [
            loaded.stream(prompt, 5, pixel_values=picture[None], prompt_cache_state=state)
            for state, picture in chats
        ]
        said = list(zip(*streams, strict=True))  # a token of one, a token of the other
        for at, (state, picture) in enumerate(chats):
            further = [*prompt, *[tokens[at] for tokens in said][:5], *MORE]
            caches = state.cache
            again = answer(loaded, further, [picture], prompt_cache_state=state)
            assert again == answer(loaded, further, [picture])
            assert state.cache is caches


def test_a_file_with_another_picture_in_it_is_another_picture(loaded, tmp_path):
    """Through the processor, as the chat does it."""
    from mlx_vlm import stream_generate

    file = tmp_path / "picture.png"

    def draw(seed):
        pixels = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(file)

    def ask(prompt, limit, **how):
        how = {"image": [str(file)], "max_tokens": limit, "temperature": 0.0, **how}
        parts = list(stream_generate(*loaded, prompt, **how))[:limit]
        return [int(part.token) for part in parts]

    draw(1)
    prompt = "<bos><|turn>user\n<|image|>so?<turn|>\n<|turn>model\n"
    with patched(ID):
        state = new_state()
        said = loaded.processor.tokenizer.decode(ask(prompt, 4, prompt_cache_state=state))
        prompt += said + "<turn|>\n<|turn>user\nand?<turn|>\n<|turn>model\n"
        draw(2)
        assert ask(prompt, 6, prompt_cache_state=state) == ask(prompt, 6)
        caches = state.cache
        assert ask(prompt + "x", 6, prompt_cache_state=state) == ask(prompt + "x", 6)
        assert state.cache is not caches  # a fork
