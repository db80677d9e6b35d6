"""How much memory the kept prefixes of conversations may take: ``MLX_GEMMA4_PATCHES_PREFIX_BYTES``.

A number of bytes, or one with a unit, such as ``500MB`` or ``8GB``; with 0 nothing is kept.
"""

from __future__ import annotations

import functools
import os
import re

import mlx.core as mx

from ..settings import PREFIX, log

NAME = f"{PREFIX}_PREFIX_BYTES"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", re.IGNORECASE)


def limit() -> int | None:
    """Bytes, or None where the user has set no limit."""
    return _read(os.environ.get(NAME, ""))


@functools.cache
def _read(text: str) -> int | None:
    if not text.strip():
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        log.warning("%s=%r is no size; write a number of bytes, or one such as 8GB", NAME, text)
        return None
    number, unit = match.groups()
    return int(float(number) * _UNITS[f"{unit.upper()}B" if unit else ""])


def automatic() -> int:
    """Bytes where neither the user nor the host says: a tenth of the memory, 8 GB at most."""
    info = mx.metal.device_info() if mx.metal.is_available() else {}
    memory = info.get("max_recommended_working_set_size", 10 << 30)
    return min(8 << 30, memory // 10)
