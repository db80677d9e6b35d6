"""Each model of a draft pair gets its own caches, whichever shares keys and values."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import tokenizer
from tests.hosts.contract import PatchContract, patched
from tests.hosts.drafting import caches, drafted, plain
from tests.hosts.server import serve

ID = "mlx_lm.speculative_shared_cache"
PROMPT, LIMIT = tiny.prompt(5), 8  # within the window

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestSpeculativeSharedCache(PatchContract):
    id = ID

    def untouched(self):
        dense, e2b, llama = text_model("dense"), text_model("e2b"), other_models.llama()
        pairs = [(dense, e2b), (llama, llama)]
        said = [
            drafted(*pair, PROMPT, LIMIT, prompt_cache=held)
            for pair in pairs
            for held in (None, caches(*pair))
        ]
        return [*said, drafted(e2b, dense, PROMPT, LIMIT)]


@pytest.mark.parametrize("draft", tiny.SHAPES)
def test_a_cache_of_both_models_serves_both(draft):
    model, draft = text_model("e2b"), text_model(draft)
    expected = plain(model, PROMPT, LIMIT)
    with patched(ID):
        held = caches(model, draft)
        assert drafted(model, draft, PROMPT, LIMIT, prompt_cache=held) == expected


def test_the_server_answers_with_a_draft_model_as_without(tmp_path):
    model = tiny.save("e2b", tmp_path / "model")
    tokenizer.save(model)
    body = {"prompt": "some words to go on from", "max_tokens": 12, "temperature": 0}
    turns = [body, {**body, "prompt": body["prompt"] + ", and more than the window holds"}]
    said = []
    for options in ([], ["--draft-model", str(model)]):
        with patched(ID), serve("mlx_lm", model, *options) as post:
            said.append([post("/v1/completions", turn)["choices"][0]["text"] for turn in turns])
    assert said[1] == said[0]
