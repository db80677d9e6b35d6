"""The markers of media where somebody has written them in a text."""

from __future__ import annotations

import re
from typing import Any

# of images, videos and sounds: what stands for one, and what begins and ends it
_MARKER = re.compile(r"<(?=\|(?:image|video|audio)\|?>|(?:image|audio)\|>)")


def escaped(value: Any) -> Any:
    """A message, a content or a text in which no text is read as a medium; itself if none is.

    A written marker gets a space behind its "<", which makes it a text again.
    """
    if isinstance(value, str):
        return _like(value, _MARKER.sub("< ", value))
    if isinstance(value, list):
        return _like(value, [escaped(part) for part in value])
    if isinstance(value, dict):
        texts = {key: escaped(value[key]) for key in ("content", "text") if key in value}
        return {**value, **texts} if any(texts[key] is not value[key] for key in texts) else value
    return value


def _like(value: Any, made: Any) -> Any:
    """``made`` in the type of ``value``, with the attributes a subclass has; ``value`` if equal."""
    noted = {name: escaped(part) for name, part in getattr(value, "__dict__", {}).items()}
    if made == value and all(noted[name] is vars(value)[name] for name in noted):
        return value
    if type(value) in (str, list):
        return made
    made = type(value)(made)
    vars(made).update(noted)
    return made
