"""Small models of mlx-vlm with per-layer inputs and a reused cache."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract
from tests.hosts.parity import TOLERANCE, distance
from tests.hosts.pictures import Pictured

pytest.importorskip("mlx_vlm")


class TestPerLayerSlice(PatchContract):
    id = "mlx_vlm.per_layer_slice"

    def untouched(self):
        small, large = Pictured("e2b"), Pictured("dense")
        return [
            small.first_logprobs(small.ids("images"), prefill_step_size=None),
            large.first_logprobs(large.ids("40"), prefill_step_size=8),
        ]


@pytest.fixture(scope="module")
def e2b() -> Pictured:
    return Pictured("e2b")


@pytest.fixture
def step(request: pytest.FixtureRequest, e2b: Pictured) -> int:
    """A step size; 0.4.3 cannot prefill E2B in parts, as the doctor says."""
    if request.param < 512 and len(e2b.language_model.make_cache()) == 9:
        request.applymarker(pytest.mark.xfail(strict=True, raises=ValueError))
    return request.param


@pytest.mark.parametrize("prompt", ["40", "images"])
@pytest.mark.parametrize("step", [5, 16, 512], indirect=True)
def test_any_step_size_gives_the_tokens_of_transformers(
    e2b: Pictured, prompt: str, step: int
) -> None:
    expected = e2b.expected[f"greedy_{prompt}"].tolist()
    assert e2b.greedy(e2b.ids(prompt), len(expected), prefill_step_size=step) == expected


@pytest.mark.parametrize("prefix", [4, 20, 34])
@pytest.mark.parametrize("step", [3, 5, 512], indirect=True)
@pytest.mark.parametrize("prompt", ["40", "adjacent"])
def test_behind_a_cached_prefix_the_tokens_are_those_of_the_whole_prompt(
    e2b: Pictured, prefix: int, step: int, prompt: str
) -> None:
    first, second = e2b.ids("40")[:, :prefix], e2b.ids(prompt)
    if prompt == "40":  # images go behind it whole
        second = second[:, prefix:]
    whole = mx.concatenate([first, second], axis=1)
    cache = e2b.language_model.make_cache()
    e2b.logits(first, cache=cache)
    reused = e2b.greedy(second, 12, prefill_step_size=step, prompt_cache=cache)
    assert reused == e2b.greedy(whole, 12, prefill_step_size=None)
    if prompt == "40":
        assert reused == e2b.expected["greedy_40"][:12].tolist()


def test_embeddings_without_ids_keep_their_per_layer_inputs(e2b: Pictured) -> None:
    ids = e2b.ids("8")
    made = e2b.model.get_input_embeddings(ids)
    part = {"inputs_embeds": made.inputs_embeds, "per_layer_inputs": made.per_layer_inputs}
    with_ids = e2b.language_model(ids, **part).logits
    assert distance(e2b.language_model(None, **part).logits, with_ids) < TOLERANCE
