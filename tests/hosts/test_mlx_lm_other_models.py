"""Other models than Gemma 4 say, bit for bit, what they say without any patch."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts.contract import equal, unpatched

pytest.importorskip("mlx_lm")

ROWS = [tiny.prompt(length, seed=length) for length in (40, 21, 5)]  # the window is 16


def _said(model, ids, **how):
    """The greedy tokens and their logprobs."""
    from mlx_lm.generate import generate_step

    return [
        (int(token), logprobs)
        for token, logprobs in generate_step(mx.array(ids), model, max_tokens=8, **how)
    ]


def _together(model):
    from mlx_lm.generate import BatchGenerator

    generator = BatchGenerator(model, max_tokens=8, prefill_step_size=16)
    said = {uid: [] for uid in generator.insert(ROWS)}
    try:
        while any(len(tokens) < 8 for tokens in said.values()):
            made = generator.next()
            for part in made[1] if isinstance(made, tuple) else made:
                said[part.uid].append((part.token, part.logprobs))
    finally:
        generator.close()
    return list(said.values())


@pytest.mark.parametrize("name", other_models.NAMES)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_one_prompt_and_a_batch(name, dtype) -> None:
    model = other_models.of_mlx_lm(name)
    if name != "gpt_oss":  # on the CPU its experts take float32 only
        model.set_dtype(dtype)

    def answers():
        return [_said(model, row, prefill_step_size=16) for row in ROWS], _together(model)

    patched = answers()
    with unpatched("mlx_lm"):
        assert equal(answers(), patched)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_quantized_caches_and_a_draft_model(name) -> None:
    from mlx_lm.generate import speculative_generate_step

    model = other_models.of_mlx_lm(name)

    def answers():
        drafted = speculative_generate_step(mx.array(ROWS[0]), model, model, max_tokens=8)
        quantized = _said(model, ROWS[0], kv_bits=8, kv_group_size=32, quantized_kv_start=4)
        return quantized, [(int(token), logprobs) for token, logprobs, _ in drafted]

    patched = answers()
    with unpatched("mlx_lm"):
        assert equal(answers(), patched)
