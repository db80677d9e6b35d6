"""Whether the text at hand is the last of a stream, where the host does not say (0.5.0 to 0.6.17).

The server reads the text of each token and then hands it on, in one task. Whoever is handed the
text asks here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_AT_HAND: ContextVar[bool] = ContextVar("the token at hand is the last", default=False)


def telling(original: Callable) -> Callable:
    """The host's ``ResponseGenerator.generate``, whose last token says that it is."""

    def generate(self, *args, **kwargs):
        context, tokens = original(self, *args, **kwargs)
        return context, _Tokens(tokens)

    return generate


def is_read() -> bool:
    """Whether the last token was read; True once for each."""
    last = _AT_HAND.get()
    _AT_HAND.set(False)
    return last


@contextlib.contextmanager
def at_hand() -> Iterator[None]:
    """Within, the last token was read."""
    token = _AT_HAND.set(True)
    try:
        yield
    finally:
        _AT_HAND.reset(token)


class _Tokens:
    def __init__(self, tokens: Any):
        self._tokens = tokens

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        token = next(self._tokens)
        return _LastToken(token) if token.finish_reason else token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokens, name)


class _LastToken:
    def __init__(self, token: Any):
        self._token = token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._token, name)

    @property
    def text(self) -> str:
        _AT_HAND.set(True)
        return self._token.text
