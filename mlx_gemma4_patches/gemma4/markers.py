"""What Gemma 4's markers have in common: ``<`` stands at their beginning and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable


def beginning(text: str, markers: Iterable[str]) -> int:
    """Where the end of ``text`` may be the beginning of a marker; its length where it is none."""
    begins = text.rfind("<")
    if begins < 0:
        return len(text)
    end = text[begins:]
    may_become = any(marker.startswith(end) and marker != end for marker in markers)
    return begins if may_become else len(text)
