"""Token ids by which prompts with pictures and sounds are told apart.

Every soft token has the id of a placeholder, whatever is shown. Here those of a medium have ids of
its content instead, so that two prompts are alike as far as their ids are, and what a KV cache
holds of the first tokens can be looked up by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from . import media
from .embedded import runs
from .placeholders import Placeholders

# what processors make of each medium, one after the other
_OF_IMAGES = ("pixel_values", "image_position_ids")
_OF_SOUNDS = ("input_features", "input_features_mask")
# made of all media together; where they are missing the model makes them again
_MADE = ("cached_image_features", "vision_cache")
# these are not told apart
_OTHERS = (
    "pixel_values_videos",
    "video_position_ids",
    "cached_video_features",
    "audio_features",
    "audio_mask",
)
NAMES = frozenset((*_OF_IMAGES, *_OF_SOUNDS, *_MADE, *_OTHERS))

_NUMBER = 4  # bytes of an id, which hosts pack as int32
_TELLS_APART = 4  # soft tokens, whose ids are 124 bits; a picture has more, a sound of 0.2 s too


class Seen:
    """A prompt with its media.

    Args:
        ids: int (L,), with a placeholder for each soft token.
        inputs: what the model takes beside them; others than media are not looked at.

    Raises:
        ValueError: it is not known which medium stands where, or one has so few soft tokens that
            their ids would not tell it apart.
    """

    def __init__(self, ids: list[int], inputs: Mapping[str, Any], placeholders: Placeholders):
        if any(inputs.get(name) is not None for name in _OTHERS):
            raise ValueError("media that are not told apart")
        self.ids = list(ids)
        self._given = {name: inputs[name] for name in NAMES if inputs.get(name) is not None}
        self._places: dict[str, list[tuple[int, int]]] = {}
        row = mx.array(ids)
        for token, names in ((placeholders.image, _OF_IMAGES), (placeholders.audio, _OF_SOUNDS)):
            places = [] if token is None else runs(row, token)
            each = {name: self._given[name] for name in names if name in self._given}
            if any(len(value) != len(places) for value in each.values()) or (places and not each):
                raise ValueError(f"{len(places)} places for media of another number")
            for index, (begin, end) in enumerate(places):
                if end - begin < _TELLS_APART:
                    raise ValueError(f"a medium of {end - begin} soft tokens")
                digest = media.digest({name: value[index] for name, value in each.items()})
                self.ids[begin:end] = [_number(digest, at) for at in range(end - begin)]
            self._places |= dict.fromkeys(each, places)

    def behind(self, length: int) -> dict[str, Any]:
        """The media behind the first ``length`` tokens, None where there are none of a kind."""
        if not length:
            return self._given
        made: dict[str, Any] = dict.fromkeys(self._given)
        for name, places in self._places.items():
            done = sum(begin < length for begin, _ in places)
            made[name] = self._given[name][done:] if done < len(places) else None
        return made


def _number(digest: bytes, at: int) -> int:
    """A part of ``digest``, as an int32 that is no token's id."""
    begin = at * _NUMBER % len(digest)
    return -1 - (int.from_bytes(digest[begin : begin + _NUMBER], "little") >> 1)
