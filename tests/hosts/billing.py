"""System prompts of Claude Code, whose first line changes with every request."""

from __future__ import annotations

LINE = "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"
WORDS = "Be nice."


def blocks(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


WITHOUT_LINE = (None, WORDS, blocks(WORDS, "", "Now."), f"Say {LINE} twice", [])
# which come to WORDS alone when the line is left out
WITH_LINE = (
    f"{LINE}\n{WORDS}",
    blocks(LINE, WORDS),
    blocks(f"{LINE}\n", WORDS),
    blocks(f"{LINE}\n{WORDS}"),
)
