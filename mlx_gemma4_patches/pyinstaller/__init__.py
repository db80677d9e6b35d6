"""What PyInstaller needs to know to freeze a program that calls ``activate``."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """Where the hooks lie; PyInstaller finds this by the entry point ``pyinstaller40``."""
    return [str(Path(__file__).parent)]
