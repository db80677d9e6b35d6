"""Tokens that generation_config.json suppresses are never said in vllm-mlx's batches."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import batching, tokenizer
from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")
pytestmark = pytest.mark.usefixtures("no_metal_needed")

ID = "vllm_mlx.suppress_tokens"
_TOKENS = 8
_PROMPTS = ("One more", "Some words that do not fit into one window")


def _suppressing(folder: Path, tokens) -> Path:
    file = batching.save("dense", folder, batching.PLAIN_TEMPLATE) / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "suppress_tokens": tokens}))
    return folder


def _alone(prompt: str, suppressed: list[int], count: int = _TOKENS) -> list[int]:
    """Greedy tokens where the suppressed have no chance, as transformers has it."""
    language_model = model("dense").language_model
    cache, new, made = language_model.make_cache(), tokenizer.ids(prompt), []
    for _ in range(count):
        scores = language_model(mx.array([new]), cache=cache).logits[0, -1]
        if suppressed:
            scores[mx.array(suppressed)] = -mx.inf
        new = [mx.argmax(scores).item()]
        made += new
    return made


class TestSuppressTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path):
        self.folder = tmp_path

    def untouched(self):
        """A model that names no token, or one that nothing makes likely."""
        said = []
        for tokens in ([], [499]):
            folder = _suppressing(self.folder / "gemma-4-tiny", tokens)
            with batching.engine(folder) as engine:
                message = batching.message(_PROMPTS[0])
                said.append(engine.answer(message, max_tokens=_TOKENS).text)
        return said


def test_suppressed_tokens_are_said_neither_first_nor_later(tmp_path) -> None:
    suppressed = sorted({token for prompt in _PROMPTS for token in _alone(prompt, [], 3)})
    folder = _suppressing(tmp_path / "gemma-4-tiny", suppressed)
    decode = Tokenizer.from_file(str(folder / "tokenizer.json")).decode
    wanted = [decode(_alone(prompt, suppressed)).strip() for prompt in _PROMPTS]
    with batching.engine(folder, enable_prefix_cache=False) as engine:
        asked = [[batching.message(prompt)] for prompt in _PROMPTS]
        answers = engine.answers(*asked, max_tokens=_TOKENS)
    assert [answer.text.strip() for answer in answers] == wanted
