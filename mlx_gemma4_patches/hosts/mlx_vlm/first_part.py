"""What a stream of mlx-vlm does before its first part comes: it prepares its inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from contextvars import ContextVar
from typing import Any


def seen_until_first(variable: ContextVar, value: Any, parts: Generator) -> Iterator[Any]:
    """``parts``, with ``variable`` set to ``value`` until the first of them has come."""
    with contextlib.closing(parts):
        before = variable.set(value)
        try:
            first = next(parts, None)
        finally:
            variable.reset(before)
        if first is not None:
            yield first
            yield from parts
