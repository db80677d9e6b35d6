"""How the keys of mlx-vlm's prefix cache tell media apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...gemma4 import media


def media_key(inputs: Mapping[str, Any]) -> int:
    """64 bits, signed as the host's own, of the media among ``inputs``; 0 where there are none."""
    return int.from_bytes(media.digest(inputs)[:8], "little", signed=True)
