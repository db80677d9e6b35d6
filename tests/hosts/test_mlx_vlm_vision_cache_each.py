"""A picture goes through the vision tower once, whatever else is shown beside it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.parity import TOLERANCE, distance
from tests.hosts.pictures import pixels, square, wide

vision_cache = pytest.importorskip(
    "mlx_vlm.vision_cache", reason="this mlx-vlm keeps nothing of pictures"
)

ID = "mlx_vlm.vision_cache_each"
PICTURE = [500, *[502] * 4, 501]
WIDE = [500, *[502] * 6, 501]


class Chat:
    """A model that is shown pictures, and what of them its tower has seen."""

    def __init__(self, places: int = 20, dtype: mx.Dtype = mx.float32):
        self.made = model("dense")
        self.cache = vision_cache.VisionFeatureCache(places)
        self.seen = 0
        self._dtype = dtype
        embed = self.made.embed_vision

        def watched(soft_tokens: mx.array) -> mx.array:
            self.seen += soft_tokens.size // soft_tokens.shape[-1]
            return embed(soft_tokens)

        self.made.embed_vision = watched

    def show(self, *pictures: mx.array, **how: Any) -> mx.array:
        """The embeddings of a prompt with these pictures."""
        ids = [5]
        for picture in pictures:
            ids += PICTURE if picture.shape == square(1).shape else WIDE
        pictures = tuple(picture.astype(self._dtype) for picture in pictures)
        prompt = mx.array([[*ids, 6]])
        return self.made.get_input_embeddings(prompt, pixels(*pictures), **how).inputs_embeds

    def cached(self, *pictures: mx.array) -> int:
        """How many soft tokens the tower makes; the embeddings must be those without a cache."""
        wanted, before = self.show(*pictures), self.seen
        key = " ".join(str(picture.sum().item()) for picture in pictures)
        made = self.show(*pictures, vision_cache=self.cache, _image_key=key)
        assert distance(made, wanted) < TOLERANCE
        return self.seen - before


class _Own(dict):
    """A caller's own cache, which holds what it is given and says nothing of its size."""

    put = dict.__setitem__


class TestVisionCacheEach(PatchContract):
    id = ID

    def untouched(self) -> Any:
        chat = Chat()
        how = {"vision_cache": chat.cache, "_image_key": "one"}
        given = chat.made.encode_image(square(3)[None])
        of_a_caller = {"vision_cache": _Own(), "_image_key": "two"}
        return [
            chat.show(square(1), **how),
            chat.show(square(1), **how),
            chat.show(square(1), square(2)),
            chat.show(square(1), square(2), **of_a_caller),
            chat.show(square(1), cached_image_features=given),
            chat.made.get_input_embeddings(mx.array([[5, 6, 7]]), None).inputs_embeds,
        ]


@pytest.fixture(params=[mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def chat(request: pytest.FixtureRequest) -> Chat:
    skip_unless_needed(ID)
    return Chat(dtype=request.param)


def test_what_is_shown_again_is_not_encoded_again(chat) -> None:
    assert chat.cached(square(1)) == 4
    assert chat.cached(square(1)) == 0
    assert chat.cached(square(1), square(2)) == 4
    assert chat.cached(square(1), square(2), wide(3)) == 6
    assert chat.cached(wide(3), square(2)) == 0
    assert chat.cached(square(2), square(1)) == 0


def test_another_picture_of_that_size_is_another(chat) -> None:
    chat.cached(square(1), square(2))
    assert chat.cached(square(1), square(4)) == 4
    assert chat.cached(wide(1).reshape(3, 144, 96)[:, :96], square(1)) == 4


def test_more_pictures_than_there_is_room_for_are_kept_together() -> None:
    skip_unless_needed(ID)
    chat = Chat(places=4)
    many = [square(seed) for seed in range(3)]
    assert chat.cached(*many) == 12
    assert len(chat.cache) == 1
    assert chat.cached(*many) == 0
    assert chat.cached(*many[:2]) == 8
    assert len(chat.cache) <= 4


def test_positions_tell_pictures_of_the_same_patches_apart() -> None:
    skip_unless_needed(ID)
    chat = Chat()
    asked = []
    chat.made.encode_image = lambda pixels, positions: asked.append(positions) or mx.zeros((4, 64))
    how = {"vision_cache": chat.cache}
    for number, columns in enumerate((2, 2, 4)):
        grid = mx.stack([mx.arange(36) % columns, mx.arange(36) // columns], -1)[None]
        chat.show(square(1), **how, _image_key=f"prompt {number}", image_position_ids=grid)
    assert len(asked) == 2
