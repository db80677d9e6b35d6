"""vllm-mlx's prefix cache and prompts with images."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from tests.hosts import batching, checkpoints
from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")
pytestmark = pytest.mark.usefixtures("no_metal_needed")

ID = "vllm_mlx.prefix_cache_images"
# past the 128 tokens under which 0.4.0 and later look for no prefix
_LONG = "".join(f"{number}. Be kind to birds. " for number in range(8))


class TestPrefixCacheImages(PatchContract):
    id = ID

    def untouched(self):
        """A cache that no multimodal Gemma 4 has."""
        from mlx_lm.models.cache import KVCache
        from vllm_mlx.memory_cache import MemoryAwarePrefixCache

        cache = MemoryAwarePrefixCache(SimpleNamespace())
        layer = KVCache()
        layer.update_and_fetch(mx.ones((1, 1, 200, 1)), mx.ones((1, 1, 200, 1)))
        stored = cache.store(list(range(200)), [layer])
        layers, rest = cache.fetch([*range(200), 3])
        return stored, layers[0].state, rest, cache.get_stats()["hits"]


def test_the_same_question_about_another_image_is_answered_anew(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny", batching.PLAIN_TEMPLATE)

    def slide(config):
        config["text_config"]["sliding_window"] = 4096  # nothing is dropped: all could be reused

    checkpoints.change(folder, slide)
    asked = [
        batching.message(_LONG, batching.image(0)),
        batching.message(_LONG, batching.image(1)),
        batching.message(f"{_LONG}And?", batching.image(1)),
        batching.message(_LONG),
        batching.message(_LONG),
    ]
    answers, hits = {}, []
    for reuse in (True, False):
        with batching.engine(folder, enable_prefix_cache=reuse) as engine:
            answers[reuse] = []
            for message in asked:
                answers[reuse].append(engine.answer(message, max_tokens=4).text)
                hits += [engine.prefix_hits()] if reuse else []
    assert answers[True] == answers[False]
    assert hits in (
        [0, 0, 0, 0, 1],
        [0, 0, 1, 1, 2],  # prefix_reuse tells images apart
        [None] * 5,  # 0.2.7 has no such cache
    )
