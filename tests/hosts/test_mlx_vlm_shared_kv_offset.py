"""Layers of mlx-vlm that share keys and values, in batches; test_mlx_vlm_parity.py has the rest."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.parity import TOLERANCE, distance

_LENGTHS = (40, 21, 5)  # two past the window of 16
_STEPS = 12  # the third, too


class TestSharedKVOffset(PatchContract):
    id = "mlx_vlm.shared_kv_offset"

    def untouched(self):
        language_model = model("dense").language_model  # shares nothing
        prompt = mx.array([tiny.prompt(20)])
        cache = language_model.make_cache()
        return [
            language_model(prompt).logits,
            language_model(prompt, cache=cache).logits,
            language_model(prompt[:, :1], cache=cache).logits,
        ]


@pytest.fixture(scope="module")
def e2b():
    pytest.importorskip("mlx_vlm")
    return model("e2b").language_model


def test_prompts_prefilled_alone_then_decoded_together_give_the_same_as_alone(e2b) -> None:
    caches = [e2b.make_cache() for _ in _LENGTHS]
    for row, cache in enumerate(caches):
        mx.eval(e2b(_prompt(row), cache=cache).logits)
    owners = e2b.model.config.num_hidden_layers - e2b.model.config.num_kv_shared_layers
    # mlx-vlm 0.4.3 also makes caches for the layers that share; they stay empty.
    together = [layer[0].merge(list(layer)) for layer in zip(*caches, strict=True)]
    _assert_decodes_as_alone(e2b, together)
    assert {cache.offset[0].item() for cache in together[:owners]} == {_LENGTHS[0] + _STEPS}


def test_prompts_padded_to_one_batch_give_the_same_as_alone(e2b) -> None:
    from mlx_vlm.models.cache import BatchKVCache, BatchRotatingKVCache

    padding = [max(_LENGTHS) - length for length in _LENGTHS]
    together = [
        BatchRotatingKVCache(cache.max_size, padding)
        if hasattr(cache, "max_size")
        else BatchKVCache(padding)
        for cache in e2b.make_cache()
    ]
    rows = [[0] * pad + _prompt(row)[0].tolist() for row, pad in enumerate(padding)]
    mx.eval(e2b(mx.array(rows), cache=together).logits)
    _assert_decodes_as_alone(e2b, together)


def test_quantized_keys_and_values_are_shared_as_well(e2b) -> None:
    skip_unless_needed("mlx_vlm.shared_kv_offset")  # later releases share by other means
    prompt = mx.array([tiny.prompt(12)])
    cache = e2b.make_cache()
    cache = [c if hasattr(c, "max_size") else c.to_quantized(group_size=32, bits=8) for c in cache]
    plain = e2b(prompt, cache=e2b.make_cache()).logits
    assert distance(e2b(prompt, cache=cache).logits, plain) < 1


def _prompt(row: int) -> mx.array:
    return mx.array([tiny.prompt(_LENGTHS[row], seed=row)])


def _assert_decodes_as_alone(e2b, together) -> None:
    steps = mx.array([tiny.prompt(_STEPS, seed=10 + row) for row in range(len(_LENGTHS))])
    made = [e2b(steps[:, i : i + 1], cache=together).logits for i in range(_STEPS)]
    made = mx.concatenate(made, axis=1)
    for row in range(len(_LENGTHS)):
        cache = e2b.make_cache()
        mx.eval(e2b(_prompt(row), cache=cache).logits)
        alone = [e2b(steps[row : row + 1, i : i + 1], cache=cache).logits for i in range(_STEPS)]
        assert distance(made[row], mx.concatenate(alone, axis=1)[0]) < TOLERANCE
