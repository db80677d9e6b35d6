"""How the keys of mlx-vlm's prefix cache tell media apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...gemma4 import media


def media_key(inputs: Mapping[str, Any]) -> int:
    """64 bits, signed as the host's own, of the media among ``inputs``; 0 where there are none."""
    return int.from_bytes(media.digest(inputs)[:8], "little", signed=True)


class OfAllMedia(int):
    """An image hash that tells prompts of the same token ids apart, whatever they show."""


class WithIds(OfAllMedia):
    """The hash of a prompt as if it showed nothing: its media are told apart by their ids.

    Args:
        ids: of the prompt, as in ``gemma4.media_ids``.
    """

    ids: list[int]

    def __new__(cls, value: int, ids: list[int]) -> WithIds:
        made = super().__new__(cls, value)
        made.ids = ids
        return made


def ids_with_media(ids: Sequence[int], prompt_kwargs: Mapping[str, Any] | None) -> list[int]:
    """Those by which a prompt of a batch generator is looked up and kept."""
    for name in ("_apc_semantic_hash", "_apc_image_hash"):
        if isinstance(found := (prompt_kwargs or {}).get(name), WithIds):
            return found.ids
    return list(ids)
