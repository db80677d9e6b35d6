"""An image that vllm-mlx has seen before."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts import batching
from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.vision_cache_clear"


def _kept(given: dict) -> dict:
    """What the cache keeps of an image's further inputs."""
    from vllm_mlx.vision_embedding_cache import VisionEmbeddingCache

    cache = VisionEmbeddingCache()
    values = mx.zeros((1, 3))
    cache.set_pixel_cache(["an image"], "hi", values, input_ids=values, extra_kwargs=given)
    return cache.get_pixel_cache(["an image"], "hi").extra_kwargs


class TestVisionCacheClear(PatchContract):
    id = ID

    def untouched(self):
        return [_kept({}), _kept({"mm_token_type_ids": mx.arange(3)}), _kept(None)]


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_an_image_gives_the_same_answer_each_time(shape: str, tmp_path) -> None:
    folder = batching.save(shape, tmp_path / "gemma-4-tiny")
    asked = batching.message("hi", batching.image(0))
    with batching.engine(folder) as engine:
        first, *again = [engine.answer(asked).text for _ in range(3)]
    assert again == [first, first]
