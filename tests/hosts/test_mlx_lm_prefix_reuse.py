"""mlx-lm's server processes what is new in a turn, and answers as in a fresh run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm import prefixes
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import conversations, reuse
from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestPrefixReuse(PatchContract):
    id = "mlx_lm.prefix_reuse"

    def untouched(self) -> Any:
        """What a batch generator that serves nobody's conversations makes."""
        from mlx_lm.generate import BatchGenerator

        generator = BatchGenerator(text_model("e2b"), max_tokens=3)
        generator.insert([tiny.prompt(24), tiny.prompt(5)])
        said = []
        while len(said) < 6:
            said += [(r.uid, r.token, r.logprobs) for r in generator.next()[1]]
        return said


@pytest.mark.parametrize(
    ("shape", "style", "letters"),
    [("e2b", "july", "csh"), ("moe", "april", "cg"), ("dense", "may", "cg")],
)
def test_a_turn_processes_what_is_new_in_it(shape, style, letters, tmp_path: Path) -> None:
    route = reuse.ROUTES["mlx_lm"]
    with reuse.client(route, tmp_path / "model", shape, style) as made:
        reuse.hold(made, route, letters)
    reuse.check(made.turns)


@pytest.mark.parametrize("name", ["mlx_lm", "mlx_lm alone", "mlx_lm draft"])
def test_so_does_one_that_takes_many_steps(name, tmp_path: Path) -> None:
    route = reuse.ROUTES[name]
    steps = ("--prefill-step-size", "60")
    route = dataclasses.replace(route, arguments=(*route.arguments, *steps))
    with reuse.client(route, tmp_path / "model") as made:
        conversations.chat(made.ask)
    reuse.check(made.turns)


def test_the_limits_of_the_server_hold_for_all_its_models(monkeypatch) -> None:
    from mlx_lm.models.cache import KVCache, LRUPromptCache

    def read(seed: int) -> tuple[list[int], list]:
        ids, caches = tiny.prompt(40, seed=seed), made.make_cache()
        made(mx.array([ids]), cache=caches)
        return ids, caches

    def other(seed: int) -> tuple[list[int], list]:
        cache = KVCache()
        cache.update_and_fetch(mx.zeros((1, 1, 8, 4)), mx.zeros((1, 1, 8, 4)))
        return [*tiny.prompt(7, seed=seed), 1], [cache]

    made, kept = text_model("dense"), LRUPromptCache(max_size=3)
    prefixes.open_store(kept, "gemma")
    for seed in range(5):
        for model, (ids, caches) in (("gemma", read(seed)), ("other", other(seed))):
            kept.insert_cache(model, ids, caches)
            assert len(kept) <= 3
            again, rest = kept.fetch_nearest_cache(model, [*ids, 5])
            assert again is not None and rest == [5]
    kept.trim_to(n_bytes=0)
    assert len(kept) == kept.nbytes == 0
    monkeypatch.setenv("MLX_GEMMA4_PATCHES_PREFIX_BYTES", "1KB")
    kept.insert_cache("gemma", *read(9))
    assert kept.nbytes <= 1000
