"""mlx_lm.reverse_embedding: embeddings alone give what their token ids give, or an error."""

from __future__ import annotations

import functools
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.gemma4 import embedding, tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("mlx_lm.models.gemma4_text")  # mlx-lm 0.31.1 has none
from mlx_lm.generate import generate_step

ID = "mlx_lm.reverse_embedding"
PLAIN = (mx.float32, mx.bfloat16)
QUANTIZED = (
    *(("affine", bits, 64) for bits in (2, 3, 4, 5, 6, 8)),
    ("affine", 4, 32),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
    ("nvfp4", 4, 16),
)
EMPTY = mx.array([], mx.int32)


@functools.cache
def model_of(form: Any) -> nn.Module:
    model = text_model("e2b")
    if not isinstance(form, tuple):
        model.set_dtype(form)
        return model
    mode, bits, group_size = form
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, group_size, bits, mode=mode)
    return model


def embeddings_of(model: nn.Module, ids: mx.array) -> mx.array:
    return model.language_model.model.embed_tokens(ids)


def prompt(*shape: int) -> mx.array:
    return mx.array(tiny.prompt(math.prod(shape))).reshape(shape)


def noise(*shape: int) -> mx.array:
    return mx.random.normal((*shape, 192), key=mx.random.key(1))


class TestReverseEmbedding(PatchContract):
    id = ID

    def untouched(self) -> Any:
        e2b, dense = model_of(mx.float32), text_model("dense")
        ids = prompt(2, 20)
        known = e2b.language_model.model._get_per_layer_inputs(ids)
        return [
            e2b(ids),
            e2b(ids, input_embeddings=noise(2, 20)),
            e2b(None, input_embeddings=noise(2, 20), per_layer_inputs=known),
            dense(None, input_embeddings=noise(2, 20)),
            [token for token, _ in generate_step(prompt(20), e2b, max_tokens=8)],
        ]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


@pytest.mark.parametrize("shape", ((1, 24), (1, 1), (3, 7)), ids=str)
@pytest.mark.parametrize("form", PLAIN + QUANTIZED, ids=str)
def test_embeddings_alone_give_the_logits_of_their_ids(form, shape):
    model = model_of(form)
    ids = prompt(*shape)
    logits = model(None, input_embeddings=embeddings_of(model, ids))
    assert mx.array_equal(logits, model(ids))


def test_every_token_of_the_vocabulary_is_told_from_the_others():
    text = model_of(("affine", 4, 64)).language_model.model
    ids = mx.arange(tiny.VOCABULARY)[None]
    inputs = text._get_per_layer_inputs(None, text.embed_tokens(ids))
    assert mx.array_equal(inputs, text._get_per_layer_inputs(ids))


def test_float32_copies_of_bfloat16_embeddings_are_found():
    text = model_of(mx.bfloat16).language_model.model
    ids = prompt(1, 24)
    inputs = text._get_per_layer_inputs(None, text.embed_tokens(ids).astype(mx.float32))
    assert mx.array_equal(inputs, text._get_per_layer_inputs(ids))


@pytest.mark.parametrize("form", (mx.float32, mx.bfloat16, ("affine", 4, 64)), ids=str)
@pytest.mark.parametrize("length", (1, 24))
def test_an_empty_prompt_with_embeddings_generates_what_the_ids_generate(form, length):
    model = model_of(form)
    ids = prompt(length)
    common = {"max_tokens": 8, "prefill_step_size": 5}
    expected = [token for token, _ in generate_step(ids, model, **common)]
    embeddings = embeddings_of(model, ids[None])[0]
    for none in (EMPTY, mx.array([])):  # an empty list becomes a float array
        steps = generate_step(none, model, input_embeddings=embeddings, **common)
        assert [token for token, _ in steps] == expected


@pytest.mark.parametrize("form", (mx.float32, mx.bfloat16, ("affine", 4, 64)), ids=str)
def test_embeddings_of_no_token_are_refused_with_their_positions(form):
    model = model_of(form)
    embeddings = embeddings_of(model, prompt(2, 6))
    embeddings[1, 4] = noise(1)[0]
    for ids in (None, mx.zeros((2, 0), mx.int32)):
        with pytest.raises(ValueError, match=r"1 of 12 .* at \[1, 4\],.* per_layer_inputs"):
            model(ids, input_embeddings=embeddings)


def test_generation_from_embeddings_of_no_token_is_refused():
    with pytest.raises(ValueError, match="not rows of the embedding table"):
        next(generate_step(EMPTY, model_of(mx.float32), input_embeddings=noise(6)))


def test_token_ids_never_have_the_table_hashed():
    model = model_of(mx.float32)
    known = len(embedding._indexes)
    list(generate_step(prompt(20), model, max_tokens=4))
    model(prompt(1, 6), input_embeddings=noise(1, 6))
    assert len(embedding._indexes) == known


def test_the_model_keeps_its_parameters():
    model = model_of(mx.float32)
    before = [name for name, _ in tree_flatten(model.parameters())]
    model(None, input_embeddings=embeddings_of(model, prompt(1, 6)))
    assert [name for name, _ in tree_flatten(model.parameters())] == before


def test_gradients_are_those_with_ids():
    model = text_model("e2b")
    ids = prompt(1, 6)
    embeddings = embeddings_of(model, ids)

    def loss(ids, embeddings):
        return (model(ids, input_embeddings=embeddings) ** 2).sum()

    by_embedding = mx.grad(loss, argnums=1)
    assert mx.array_equal(by_embedding(None, embeddings), by_embedding(ids, embeddings))
    by_weight = nn.value_and_grad(model, loss)
    for (name, found), (_, expected) in zip(
        tree_flatten(by_weight(None, embeddings)[1]),
        tree_flatten(by_weight(ids, embeddings)[1]),
        strict=True,
    ):
        assert mx.array_equal(found, expected), name


def test_compiled_embeddings_alone_give_the_logits_of_their_ids():
    model = model_of(mx.float32)
    ids = prompt(2, 6)
    embeddings = embeddings_of(model, ids)
    compiled = mx.compile(lambda e: model(None, input_embeddings=e))
    with_ids = mx.compile(lambda e: model(ids, input_embeddings=e))
    assert mx.array_equal(compiled(embeddings), with_ids(embeddings))


def test_compiled_embeddings_of_no_token_become_nan():
    text = model_of(mx.float32).language_model.model
    embeddings = text.embed_tokens(prompt(1, 6))
    embeddings[0, 4] = noise(1)[0]
    inputs = mx.compile(lambda e: text._get_per_layer_inputs(None, e))(embeddings)
    is_nan = mx.isnan(inputs).all((-1, -2)).tolist()
    assert is_nan == [[False, False, False, False, True, False]]


def test_a_compiled_step_that_traces_the_table_still_runs():
    model = text_model("e2b")
    ids = prompt(1, 6)
    embeddings = embeddings_of(model, ids)
    run = mx.compile(lambda e: model(None, input_embeddings=e), inputs=model.state)
    assert mx.allclose(run(embeddings), model(ids), atol=1e-4)
