"""mlx-lm's server answers a prompt that is, whole, in its prompt cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from mlx_gemma4_patches.patches.mlx_lm.prompt_stored_whole import answer_to_a_stored_prompt
from tests.hosts import tokenizer
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4", reason="mlx-lm 0.31.1 has no Gemma 4")

ID = "mlx_lm.prompt_stored_whole"


def _stored(length: int) -> tuple[Any, list[int]]:
    from mlx_lm.models.cache import LRUPromptCache, make_prompt_cache

    model, prompt, store = other_models.llama(), tiny.prompt(length), LRUPromptCache()
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([prompt]), cache=cache))
    store.insert_cache("it", prompt, cache)
    return store, prompt


class TestPromptStoredWhole(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _nothing_else_leaves_a_token(self) -> Iterator[None]:
        with stock("mlx_lm.prefix_reuse"):
            yield

    def untouched(self) -> Any:
        """What the prompt cache gives to others, a whole prompt too."""
        store, prompt = _stored(6)
        found = []
        for asked in (prompt, prompt[:4], [*prompt, 5], [5]):
            cache, rest = store.fetch_nearest_cache("it", asked)
            found.append((cache and [layer.state for layer in cache], rest))
        return found


@pytest.mark.parametrize("length", [1, 6, 40])
@pytest.mark.parametrize("make", [other_models.llama, *tiny.SHAPES])
def test_the_answer_is_that_of_a_prompt_that_was_never_seen(make: Any, length: int) -> None:
    model = text_model(make) if isinstance(make, str) else make()
    prompt = tiny.prompt(length)  # 40: past the sliding window, which cannot be rewound
    logits = model(mx.array([prompt]))
    with patched(ID):
        assert answer_to_a_stored_prompt(model, prompt) == [mx.argmax(logits[0, -1]).item()]


def test_the_server_goes_on(tmp_path) -> None:
    """The text of the first answer is what its tokens are: a, b and c."""
    tiny.save("dense", tmp_path)
    tokenizer.save(tmp_path)
    others = [i for i in range(tiny.VOCABULARY) if i not in tokenizer.ids("abc")]
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": others}))

    with serve("mlx_lm", tmp_path) as post:

        def answer(prompt: str) -> str:
            body = {"model": str(tmp_path), "prompt": prompt, "max_tokens": 4, "temperature": 0.0}
            return post("/v1/completions", body)["choices"][0]["text"]

        said = answer("Say it")
        assert len(said) == 4
        again = answer(f"Say it{said}")
        assert len(again) == 4
        assert answer(f"Say it{said}{again}")
        assert answer("Say it") == said
