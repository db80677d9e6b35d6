"""What both models of a draft pair have said is in the caller's caches afterwards."""

from __future__ import annotations

import itertools

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract, patched
from tests.hosts.drafting import caches, drafted, plain

ID = "mlx_lm.speculative_prompt_cache"
LIMIT = 10
PAIRS = list(itertools.product(tiny.SHAPES, repeat=2))

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestSpeculativePromptCache(PatchContract):
    id = ID

    def untouched(self):
        llama, dense = other_models.llama(), text_model("dense")
        held = caches(llama, llama)
        said = drafted(llama, llama, tiny.prompt(5), LIMIT, prompt_cache=held)
        offsets = [cache.offset for cache in held]
        return [said, offsets, drafted(dense, dense, tiny.prompt(5), LIMIT)]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_second_answer_is_that_of_the_model_alone(pair):
    model, draft = map(text_model, pair)
    second = tiny.prompt(6, seed=3)
    for length, bits in itertools.product((5, 20), (None, 8)):
        first, how = tiny.prompt(length), {"kv_bits": bits, "quantized_kv_start": 0}
        alone = caches(model)
        expected = [plain(model, p, LIMIT, prompt_cache=alone, **how) for p in (first, second)]
        with patched(ID):
            held = caches(model, draft)
            how = {**how, "prompt_cache": held, "num_draft_tokens": 3}
            said = [drafted(model, draft, p, LIMIT, **how) for p in (first, second)]
        assert said == expected, (length, bits)
        assert [type(c) for c in held] == [type(c) for c in alone + held[len(alone) :]]


@pytest.mark.parametrize("stop", range(1, 8))
def test_an_answer_that_the_caller_ends_is_complete_too(stop):
    from mlx_lm.generate import speculative_generate_step

    model, draft, prompt = text_model("dense"), text_model("dense"), tiny.prompt(20)
    with patched(ID):
        held = caches(model, draft)
        steps = speculative_generate_step(
            mx.array(prompt), model, draft, num_draft_tokens=3, prompt_cache=held
        )
        for _ in range(stop):
            next(steps)
        steps.close()
    assert {cache.offset for cache in held} == {len(prompt) + stop}
