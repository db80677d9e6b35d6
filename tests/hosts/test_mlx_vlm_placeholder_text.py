"""A marker in a user's text is a text."""

from __future__ import annotations

import importlib

import pytest

from tests.hosts import tokenizer
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.hearing import Hearing

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.placeholder_text"
MARKERS = [name for name in tokenizer.SPECIAL.values() if "image" in name or "audio" in name]
GEMMA4, OTHER = {"model_type": "gemma4"}, {"model_type": "qwen2_5_vl"}


def made(config, prompt, processor=None, **how):
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
    how.setdefault("return_messages", processor is None)
    return prompt_utils.apply_chat_template(processor, config, prompt, **how)


class TestPlaceholderText(PatchContract):
    id = ID

    def untouched(self):
        said = [
            {"role": "user", "content": "what <| image <image >"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": [{"type": "text", "text": "a < b"}]},
        ]
        return [
            made(GEMMA4, "see", num_images=1),
            made(GEMMA4, "<|image|>by hand"),
            made(GEMMA4, said, num_images=1),
            made(OTHER, "what is <|image|>", num_images=1),
        ]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    return Hearing(tmp_path_factory.mktemp("hearing"))


@pytest.mark.parametrize("marker", [*MARKERS, "<|video|>"])
def test_it_is_read_as_a_text(hearing, marker: str) -> None:
    for content in (f"what is {marker}{marker}", [{"type": "text", "text": f"is {marker}"}]):
        said = [{"role": "user", "content": content}]
        with patched(ID):
            prompt = made(hearing.model.config, said, hearing.processor)
        ids = hearing.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert ids.count(hearing.processor.tokenizer.convert_tokens_to_ids(marker)) == 0
        assert marker.replace("<", "< ") in prompt


def test_beside_an_image_it_is_answered(hearing) -> None:
    said = [{"role": "user", "content": "what does <|image|> mean"}]
    image = str(hearing.folder / "wide.png")
    utils = importlib.import_module("mlx_vlm.utils")

    def ids() -> list[int]:
        prompt = made(hearing.model.config, said, hearing.processor, num_images=1)
        inputs = utils.prepare_inputs(hearing.processor, images=[image], prompts=prompt)
        return inputs["input_ids"][0].tolist()

    plain = [{"role": "user", "content": "what does that mean"}]
    prompt = made(hearing.model.config, plain, hearing.processor, num_images=1)
    inputs = utils.prepare_inputs(hearing.processor, images=[image], prompts=prompt)
    token = hearing.processor.tokenizer.convert_tokens_to_ids("<|image|>")
    expected = inputs["input_ids"][0].tolist().count(token)
    with patched(ID):
        assert ids().count(token) == expected
    with stock(ID):
        try:
            assert ids().count(token) != expected
        except Exception as error:
            assert type(error) is not AssertionError
