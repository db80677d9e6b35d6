"""What the patches cost a process that starts, and one that imports a host."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from ..children import output
from .comparing import compare

TABLE = "start-up"

# driven by hand, site can be made to leave out our .pth or .start file
_START_UP = """
import site
add = site.addpackage
site.addpackage = lambda folder, name, *rest: (
    None if {skip!r} and name.startswith({skip!r}) else add(folder, name, *rest)
)
site.main()
"""
_IMPORT = """
import time, mlx_gemma4_patches
mlx_gemma4_patches.activate()
start = time.perf_counter()
import mlx_lm.generate
print(time.perf_counter() - start)
"""


def start_up(rounds: int = 40) -> Iterator[dict[str, Any]]:
    """Start of an interpreter that imports no host, in ms: activation left out and done."""

    def seconds(skip: str, switch: str) -> float:
        start = time.perf_counter()
        output(
            [sys.executable, "-I", "-S", "-c", _START_UP.format(skip=skip)],
            {**os.environ, "MLX_GEMMA4_PATCHES": switch},
        )
        return time.perf_counter() - start

    def without() -> float:
        return seconds("mlx_gemma4_patches_activate", "1")

    for what, switch in (("start-up, no host imported", "1"), ("start-up, switched off", "0")):
        yield compare(TABLE, what, "ms", without, functools.partial(seconds, "", switch), rounds)


def import_host(rounds: int = 7) -> dict[str, Any]:
    """``import mlx_lm.generate`` in a fresh interpreter, in ms."""

    # as pip leaves a package: without this, a checkout's modules are compiled each time
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def seconds(switch: str) -> float:
        return float(
            output([sys.executable, "-c", _IMPORT], {**environ, "MLX_GEMMA4_PATCHES": switch})
        )

    return compare(
        TABLE, "import mlx_lm.generate", "ms", lambda: seconds("0"), lambda: seconds("1"), rounds
    )
