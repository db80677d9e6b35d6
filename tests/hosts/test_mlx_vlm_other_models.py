"""Other models than Gemma 4 say, bit for bit, what they say without any patch."""

from __future__ import annotations

import importlib

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts.contract import equal, unpatched

pytest.importorskip("mlx_vlm")

PIXELS = mx.random.normal((1, 3, 32, 32), key=mx.random.key(0))


def _said(model, ids, pixels=None, **how):
    """The greedy tokens and their logprobs."""
    generate = importlib.import_module("mlx_vlm.generate")  # also the name of a function there
    ids = mx.array([ids])
    how = {"max_tokens": 8, "temperature": 0.0, **how}
    steps = generate.generate_step(ids, model, pixels, mx.ones_like(ids), **how)
    return [(int(token), logprobs) for token, logprobs in steps]


@pytest.mark.parametrize("make", [other_models.gemma3_vlm, other_models.llava_vlm])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_text_and_an_image(make, dtype) -> None:
    model, image = make()
    model.set_dtype(dtype)
    text = tiny.prompt(40)

    def answers():
        return _said(model, text), _said(model, [*text[:3], *image, *text[3:]], PIXELS)

    patched = answers()
    with unpatched("mlx_vlm", "mlx_lm"):
        assert equal(answers(), patched)


def test_a_prompt_in_parts() -> None:
    model, _ = other_models.gemma3_vlm()  # mlx-vlm 0.4.3 takes no parts of a prompt for llava
    patched = _said(model, tiny.prompt(40), prefill_step_size=16)
    with unpatched("mlx_vlm", "mlx_lm"):
        assert equal(_said(model, tiny.prompt(40), prefill_step_size=16), patched)
