"""A line of Claude Code's that is no part of the prompt, and changes with every request.

``x-anthropic-billing-header: cc_version=...; cch=...;`` begins its system prompt. It is for a
provider's accounts; with it no two prompts begin alike, and nothing of a conversation is reused.
"""

from __future__ import annotations

import re
from typing import Any

NAME = "x-anthropic-billing-header:"
_LINE = re.compile(rf"(?im)^{NAME}[^\n]*(?:\n|\Z)")

System = str | list[Any] | None  # of an Anthropic request: text, or blocks


def without_line(system: System) -> System:
    """A system prompt, text or blocks, without that line."""
    if isinstance(system, str):
        return _LINE.sub("", system)
    if system is None:
        return None
    kept = []
    for block in system:
        text = block.get("text") if isinstance(block, dict) else None
        left = _LINE.sub("", text) if isinstance(text, str) else text
        if left == text:
            kept.append(block)
        elif left:
            kept.append({**block, "text": left})
    return kept
