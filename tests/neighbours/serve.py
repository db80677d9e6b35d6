"""Runs a program and writes the states of the patches to a file at SIGUSR1.

``python -m tests.neighbours.serve FILE MODULE:FUNCTION ARGUMENTS...``
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import mlx_gemma4_patches


def main(file: str, entry_point: str, *arguments: str) -> None:
    def write(*_: Any) -> None:
        unfinished = Path(f"{file}.unfinished")
        unfinished.write_text(json.dumps(mlx_gemma4_patches.status()))
        unfinished.rename(file)

    signal.signal(signal.SIGUSR1, write)
    module, _, name = entry_point.partition(":")
    sys.argv = [name, *arguments]
    getattr(importlib.import_module(module), name)()


if __name__ == "__main__":
    main(*sys.argv[1:])
