"""Which images vllm-mlx takes for the same."""

from __future__ import annotations

import pytest

from tests.hosts import batching
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.vision_cache_key"


def _found(stored: list, asked: list, prompt: str = "hi"):
    from vllm_mlx.vision_embedding_cache import VisionEmbeddingCache

    cache = VisionEmbeddingCache()
    cache.set_pixel_cache(stored, "hi", "pixels", "ids")
    entry = cache.get_pixel_cache(asked, prompt)
    return entry and vars(entry)


class TestVisionCacheKey(PatchContract):
    id = ID

    def untouched(self):
        """The same images, other images, another prompt, and no image at all."""
        both = ["one", "two"]
        return [
            _found(both, both),
            _found(both, ["one"]),
            _found(both, ["one", "three"]),
            _found(both, both, "ho"),
            _found([], []),
        ]


def test_files_are_the_same_only_if_every_byte_is(tmp_path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(bytes(100_000) + b"1")
    second.write_bytes(bytes(100_000) + b"2")
    third.write_bytes(first.read_bytes())
    with patched(ID):
        assert _found([str(first)], [str(third)])
        assert not _found([str(first)], [str(second)])


def test_images_that_change_places_are_looked_at_again(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny")
    one, two = batching.image(0), batching.image(1, height=1)
    how = {"enable_prefix_cache": False}
    with batching.engine(folder, **how) as engine:
        engine.answer(batching.message("hi", one, two))
        swapped = engine.answer(batching.message("hi", two, one)).text
    with batching.engine(folder, **how) as engine:
        assert engine.answer(batching.message("hi", two, one)).text == swapped
