"""The environment variables, read once.

==================================== ===================================================
``MLX_GEMMA4_PATCHES=0``             off
``MLX_GEMMA4_PATCHES_STRICT=1``      an error of a patch is raised instead of logged
``MLX_GEMMA4_PATCHES_THIRD_PARTY=0`` patches of other packages are left out
``MLX_GEMMA4_PATCHES_DISABLE``       ids to leave out, separated by commas
``MLX_GEMMA4_PATCHES_ENABLE``        ids of opt-in patches to apply, separated by commas
``MLX_GEMMA4_PATCHES_PROVE=1``       at the first import of a host that is not in the matrix, run
                                     ``prove`` once
``MLX_GEMMA4_PATCHES_LOG``           a logging level, such as ``debug``
==================================== ===================================================

Switches take 1, true, yes, on and 0, false, no, off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import OFF, ON

PREFIX = "MLX_GEMMA4_PATCHES"
log = logging.getLogger("mlx_gemma4_patches")


@dataclass(frozen=True)
class Settings:
    on: bool = True
    strict: bool = False
    third_party: bool = True
    prove: bool = False
    disable: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    level: str | None = None
    problems: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        problems: list[str] = []

        def switch(name: str, default: bool) -> bool:
            text = environ.get(name, "").strip()
            if text.lower() in ON:
                return True
            if text.lower() in OFF:
                return False
            if text:
                problems.append(f"{name}={text!r} is neither on (1) nor off (0) and is ignored")
            return default

        level = environ.get(f"{PREFIX}_LOG", "").strip().upper() or None
        if level and not isinstance(logging.getLevelName(level), int):
            problems.append(
                f"{PREFIX}_LOG={level.lower()!r} is no logging level; use debug, info or warning"
            )
            level = None
        return cls(
            on=switch(PREFIX, True),
            strict=switch(f"{PREFIX}_STRICT", False),
            third_party=switch(f"{PREFIX}_THIRD_PARTY", True),
            prove=switch(f"{PREFIX}_PROVE", False),
            disable=_ids(environ.get(f"{PREFIX}_DISABLE", "")),
            enable=_ids(environ.get(f"{PREFIX}_ENABLE", "")),
            level=level,
            problems=tuple(problems),
        )


def _ids(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def in_one_line(error: BaseException) -> str:
    """An error's type and message without line breaks, for logs and reasons."""
    return " ".join(f"{type(error).__name__}: {error}".split())
