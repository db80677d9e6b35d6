"""The environment variables, read once.

=============================== =====================================================
``MLX_GEMMA4_PATCHES=0``        off
``MLX_GEMMA4_PATCHES_STRICT=1`` an error of a patch is raised instead of logged
``MLX_GEMMA4_PATCHES_DISABLE``  ids to leave out, separated by commas
``MLX_GEMMA4_PATCHES_ENABLE``   ids of opt-in patches to apply, separated by commas
``MLX_GEMMA4_PATCHES_LOG``      a logging level, such as ``debug``
=============================== =====================================================
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIX = "MLX_GEMMA4_PATCHES"
log = logging.getLogger("mlx_gemma4_patches")


@dataclass(frozen=True)
class Settings:
    on: bool = True
    strict: bool = False
    disable: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    level: str | None = None
    problems: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        problems = []
        level = environ.get(f"{PREFIX}_LOG", "").strip().upper() or None
        if level and not isinstance(logging.getLevelName(level), int):
            problems.append(
                f"{PREFIX}_LOG={level.lower()!r} is no logging level; use debug, info or warning"
            )
            level = None
        return cls(
            on=environ.get(PREFIX, "1").strip() != "0",
            strict=environ.get(f"{PREFIX}_STRICT", "").strip() == "1",
            disable=_ids(environ.get(f"{PREFIX}_DISABLE", "")),
            enable=_ids(environ.get(f"{PREFIX}_ENABLE", "")),
            level=level,
            problems=tuple(problems),
        )


def _ids(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
