"""Which stream a text is of and whether it is its last, which the host does not say to all.

From 0.5.0 to 0.6.17 the server reads the text of each token and then hands it on, in one task.
Whoever is handed the text asks here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any


class Stream:
    """One stream of the server, and what a reader of its texts keeps of it."""

    def __init__(self, is_at_last: bool = False):
        self.is_at_last = is_at_last
        self.answer: Any = None


_AT_HAND: ContextVar[Stream | None] = ContextVar("the stream whose text was read", default=None)


def telling(original: Callable) -> Callable:
    """The host's ``ResponseGenerator.generate``, whose tokens say which stream they are of."""

    def generate(self, *args, **kwargs):
        context, tokens = original(self, *args, **kwargs)
        return context, _Tokens(tokens)

    return generate


def take() -> Stream | None:
    """The stream whose text was read, once for each text; None for who was handed none."""
    stream = _AT_HAND.get()
    _AT_HAND.set(None)
    return stream


@contextlib.contextmanager
def at_hand() -> Iterator[None]:
    """Within, the last text of a stream was read."""
    token = _AT_HAND.set(Stream(is_at_last=True))
    try:
        yield
    finally:
        _AT_HAND.reset(token)


class _Tokens:
    def __init__(self, tokens: Any):
        self._tokens = tokens
        self._stream = Stream()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        token = next(self._tokens)
        return _Token(token, self._stream) if hasattr(token, "finish_reason") else token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokens, name)


class _Token:
    def __init__(self, token: Any, stream: Stream):
        self._token = token
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._token, name)

    @property
    def text(self) -> str:
        self._stream.is_at_last = bool(self._token.finish_reason)
        _AT_HAND.set(self._stream)
        return self._token.text
