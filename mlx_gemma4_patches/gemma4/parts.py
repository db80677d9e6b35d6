"""Where media stand in a message: as in transformers, where the request has them.

A message's content is a text or a list of parts, in the dialects of OpenAI, Anthropic and
transformers. Gemma 4's template renders ``{"type": "text" | "image" | "audio" | "video"}``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

KINDS = ("image", "audio", "video")

_KIND = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
}


def plain(content: Any) -> list[dict[str, str]]:
    """The parts of a content as the template takes them, in order; of no list none.

    Empty texts and parts of other kinds are left out.
    """
    if not isinstance(content, list):
        return []
    made = []
    for part in content:
        kind = _KIND.get(part.get("type")) if isinstance(part, dict) else None
        if kind == "text":
            text = part.get("text") or part.get("content")
            if text:
                made.append({"type": "text", "text": text, "content": text})
        elif kind:
            made.append({"type": kind})
    return made


def counts(parts: list[dict[str, str]]) -> Counter[str]:
    """How many parts of each of ``KINDS`` there are."""
    return Counter(part["type"] for part in parts if part["type"] in KINDS)


def limited(parts: list[dict[str, str]], left: Counter[str]) -> list[dict[str, str]]:
    """``parts`` without media of which there are none left; takes what it keeps from ``left``."""
    kept = []
    for part in parts:
        kind = part["type"]
        if kind in KINDS:
            if left[kind] < 1:
                continue
            left[kind] -= 1
        kept.append(part)
    return kept
