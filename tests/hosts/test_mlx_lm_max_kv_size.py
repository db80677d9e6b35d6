"""mlx_lm.max_kv_size: no layer of Gemma 4 keeps more than it, and the rest is as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import TOLERANCE, distance, reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models import cache as host

ID = "mlx_lm.max_kv_size"
WINDOW = 16
KEPT = 4
STEPS = 20


def sizes(caches: list[Any]) -> list[Any]:
    return [(type(cache).__name__, getattr(cache, "max_size", None)) for cache in caches]


class TestMaxKvSize(PatchContract):
    id = ID

    def untouched(self) -> Any:
        models = [other_models.llama(), other_models.gemma3n(), *map(text_model, tiny.SHAPES)]
        seen = [sizes(host.make_prompt_cache(model)) for model in models]
        seen += [sizes(host.make_prompt_cache(model, 8)) for model in models[:2]]
        prompt = reference("dense")["ids_40"]
        for model in models:
            seen.append([token for token, _ in generate_step(prompt, model, max_tokens=8)])
        return seen


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


class Masked(host.KVCache):
    """Remembers everything and shows what ``sees(query, key)`` says, by positions."""

    def __init__(self, sees: Callable[[mx.array, mx.array], mx.array]):
        super().__init__()
        self.sees = sees

    def make_mask(self, n: int, **kwargs: Any) -> mx.array:
        queries, keys = mx.arange(self.offset, self.offset + n)[:, None], mx.arange(self.offset + n)
        return (keys <= queries) & self.sees(queries, keys)


def masked(model: Any, limit: int, length: int, kept: int) -> list[Masked]:
    """Caches that show, of a prompt of ``length`` read at once and what follows, what is kept."""

    def full(queries: mx.array, keys: mx.array) -> mx.array:
        if queries.size > 1:
            return keys > queries - limit
        return (keys < kept) | (keys > queries - (limit - kept))

    def sliding(queries: mx.array, keys: mx.array) -> mx.array:
        return keys > queries - (WINDOW if queries.size > 1 else min(WINDOW, limit))

    return [
        Masked(sliding if getattr(cache, "max_size", None) else full)
        for cache in host.make_prompt_cache(model)
    ]


def logits(model: Any, caches: list[Any], prompt: mx.array, following: mx.array) -> mx.array:
    """Of the prompt, read at once, and of what follows, token by token."""
    pieces = [prompt, *following[:, None]]
    return mx.concatenate([model(piece[None], cache=caches)[0] for piece in pieces])


@pytest.mark.parametrize("shape", tiny.SHAPES)
class TestShapes:
    @pytest.mark.parametrize("limit", [24, 8], ids=["above the window", "below it"])
    def test_the_logits_are_those_of_what_is_kept(self, shape: str, limit: int) -> None:
        model, prompt = text_model(shape), reference(shape)["ids_40"]
        following = mx.array(tiny.prompt(STEPS, seed=3))
        limited = logits(model, host.make_prompt_cache(model, limit), prompt, following)
        shown = logits(model, masked(model, limit, prompt.size, KEPT), prompt, following)
        assert distance(limited, shown) < TOLERANCE
        unlimited = logits(model, host.make_prompt_cache(model), prompt, following)
        assert distance(limited, unlimited) > 100 * TOLERANCE

    def test_a_limit_that_is_never_reached_changes_nothing(self, shape: str) -> None:
        model, expected = text_model(shape), reference(shape)
        steps = generate_step(
            expected["ids_40"], model, max_tokens=expected["greedy_40"].size, max_kv_size=256
        )
        assert [token for token, _ in steps] == expected["greedy_40"].tolist()

    @pytest.mark.parametrize("limit", [24, 8, 3])
    def test_the_cache_stops_growing(self, shape: str, limit: int) -> None:
        model = text_model(shape)
        caches = host.make_prompt_cache(model, limit)
        prompt = mx.array(tiny.prompt(40))
        for _ in generate_step(prompt, model, prompt_cache=caches, max_tokens=STEPS):
            pass
        assert max(cache.keys.shape[2] for cache in caches) == limit

    def test_it_is_handed_on_by_generate(self, shape: str) -> None:
        model, prompt = text_model(shape), reference(shape)["ids_40"]
        caches = host.make_prompt_cache(model, 24)
        ours = [t for t, _ in generate_step(prompt, model, prompt_cache=caches, max_tokens=STEPS)]
        given = [t for t, _ in generate_step(prompt, model, max_kv_size=24, max_tokens=STEPS)]
        assert given == ours

    def test_a_saved_cache_goes_on_as_it_was(self, shape: str, tmp_path: Path) -> None:
        model, prompt = text_model(shape), mx.array(tiny.prompt(50))
        caches = host.make_prompt_cache(model, 24)
        model(prompt[None, :40], cache=caches)
        file = str(tmp_path / "cache.safetensors")
        host.save_prompt_cache(file, caches)
        assert sizes(host.load_prompt_cache(file)) == sizes(caches)
        same = [model(prompt[None, 40:], cache=c) for c in (caches, host.load_prompt_cache(file))]
        assert distance(*same) < TOLERANCE

    def test_a_batch_says_what_is_kept_without_the_first_tokens(self, shape: str) -> None:
        model, limit = text_model(shape), 24
        prompts = [tiny.prompt(30), tiny.prompt(37, seed=1)]
        batch = BatchGenerator(model, max_kv_size=limit, max_tokens=STEPS)
        uids = batch.insert(prompts)
        said: dict[int, list[int]] = {uid: [] for uid in uids}
        while responses := batch.next_generated():
            for response in responses:
                said[response.uid].append(response.token)
        for uid, prompt in zip(uids, prompts, strict=True):
            *before, last = prompt  # read by itself, as the batch does
            caches = masked(model, limit, len(before), kept=0)
            model(mx.array([before]), cache=caches)
            for token in said[uid]:
                assert mx.argmax(model(mx.array([[last]]), cache=caches)[0, -1]).item() == token
                last = token
