"""The token ids that stand in a prompt for the soft tokens of images, videos and audio."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import mlx.core as mx


@dataclass(frozen=True)  # no tuple: a module of mlx would take it for a parameter
class Placeholders:
    """By default those of Google's checkpoints; None for what a model does not know."""

    image: int | None = 258880
    video: int | None = 258884
    audio: int | None = 258881

    @classmethod
    def of(cls, config: Any) -> Placeholders:
        """Those of a host's config object of a multimodal model."""
        names = ("image_token_id", "video_token_id", "audio_token_id")
        return cls(*(getattr(config, name, None) for name in names))

    def seen(self, ids: mx.array) -> mx.array:
        """bool, as ``ids``: where images and videos are."""
        return among(ids, (self.image, self.video))

    def without(self, ids: mx.array) -> mx.array:
        """``ids`` with the padding id 0 where they stand for media, as per-layer inputs want it."""
        return mx.where(among(ids, (self.image, self.video, self.audio)), 0, ids)


def among(ids: mx.array, chosen: Collection[int | None]) -> mx.array:
    """bool, as ``ids``: where they are one of ``chosen``."""
    found = mx.zeros(ids.shape, mx.bool_)
    for token in chosen:
        if token is not None:
            found = found | (ids == token)
    return found
