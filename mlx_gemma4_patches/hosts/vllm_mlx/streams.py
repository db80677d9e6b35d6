"""What parsers of this host remember of the texts that they are shown part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

State = TypeVar("State")

_MOST = 64  # streams at a time, cancelled ones among them


class Streams(Generic[State]):
    """The states of several streams, told apart by their texts.

    Up to 0.4.0 the host shows all of its streams to one parser, whose own state they overwrite.
    What it shows is the text so far and the next part, so the text so far tells which stream it is.

    Args:
        begin: the state after a text that is not known, such as that of a new stream.
    """

    def __init__(self, begin: Callable[[str], State]):
        self._begin = begin
        self._states: dict[str, State] = {}

    @classmethod
    def of(cls, parser: object, begin: Callable[[str], State]) -> Streams[State]:
        """The streams of a parser."""
        return vars(parser).setdefault("_gemma4_streams", cls(begin))

    def take(self, text: str) -> State:
        """The state after ``text``, the caller's until it is put back."""
        return self._states.pop(text, None) or self._begin(text)

    def put(self, text: str, state: State) -> None:
        """``text`` and ``state`` are now a stream's."""
        self._states.pop(text, None)
        self._states[text] = state
        if len(self._states) > _MOST:
            del self._states[next(iter(self._states))]

    @property
    def latest(self) -> State | None:
        return next(reversed(self._states.values()), None)
