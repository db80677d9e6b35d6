"""The channels of Gemma 4: ``<|channel>thought\\n`` reasoning ``<channel|>``, then the answer.

The answer has no channel of its own, but models now and then open one, ``<|channel>response\\n``,
after the thought or instead of its end. A name and the newline behind it are part of the marker.
"""

from __future__ import annotations

import re

from . import tool_calls
from .markers import beginning

THOUGHT = "<|channel>thought"
RESPONSE = "<|channel>response"
END = "<channel|>"
OPENING = "<|channel>"
OPENING_ID, END_ID = 100, 101  # of <|channel>, and END

_MARKERS = (THOUGHT, RESPONSE, END)
_MARKER = re.compile("|".join(map(re.escape, _MARKERS)))
_OF_CALLS = (tool_calls.START, tool_calls.END, tool_calls.QUOTE)
_OF_CALL = re.compile("|".join(map(re.escape, _OF_CALLS)))


def opens_thought(ids: list[int]) -> bool:
    """Whether the last channel of a prompt's token ids is still open."""
    markers = [token for token in ids if token in (OPENING_ID, END_ID)]
    return markers[-1:] == [OPENING_ID]


class Channels:
    """Takes out the channel markup that a host leaves in reasoning and content.

    For hosts that split a text, as it comes, at a ``THOUGHT`` in content and an ``END`` in
    reasoning. Text of any kind but ``reasoning`` and ``normal`` (content) passes. How the text is
    cut into parts changes nothing but where the result is cut.
    """

    def __init__(self):
        self._host_kind: str | None = None
        self._kind: str | None = None  # the host's, or normal behind a RESPONSE in reasoning
        self._held = ""  # may be the beginning of a marker
        self._at_newline = False  # one that comes next is the marker's
        self._has_reasoned = False

    @property
    def is_in_thought(self) -> bool:
        return self._kind == "reasoning"

    @property
    def is_at_opening(self) -> bool:
        """Whether the text so far ends in a channel that has no name yet."""
        return self._held.startswith(OPENING)

    def feed(self, kind: str | None, text: str) -> list[tuple[str | None, str]]:
        """The next text, of a kind by the host's lights; the last item is of the current kind."""
        found = []
        if kind != self._host_kind:
            found += self.finish()
            self._host_kind = self._kind = kind
            self._at_newline = kind == "reasoning" and not self._has_reasoned
        if kind not in ("reasoning", "normal"):
            return [*found, (kind, text)]
        text = self._held + text
        at = 0
        for marker in _MARKER.finditer(text):
            found.append(self._without_newline(text[at : marker.start()]))
            at = marker.end()
            if marker[0] == THOUGHT:
                self._begin("reasoning")
            elif marker[0] == RESPONSE:
                self._begin("normal")
            else:
                self._kind = "normal"
                self._at_newline = False
        text = text[at:]
        begins = beginning(text, _MARKERS)
        self._held = text[begins:]
        return [*found, self._without_newline(text[:begins])]

    def finish(self) -> list[tuple[str | None, str]]:
        """What was held back in case it became a marker, unless that is what it began to be."""
        held, self._held = self._held, ""
        return [self._without_newline(held)] if held and not held.startswith(OPENING) else []

    def _begin(self, kind: str) -> None:
        self._kind = kind
        # between two thoughts the newline of the second marker keeps them apart
        self._at_newline = kind == "normal" or not self._has_reasoned

    def _without_newline(self, text: str) -> tuple[str | None, str]:
        if self._at_newline and text:
            self._at_newline = False
            text = text.removeprefix("\n")
        if text and self._kind == "reasoning":
            self._has_reasoned = True
        return self._kind, text


class Turn:
    """Splits what the model says in a turn, as it comes, into reasoning and content.

    For hosts that split nothing themselves. Tool calls are content and stay as they are, with what
    looks like a marker in their strings; one in a thought ends the thought. How the text is cut
    into parts changes nothing but where the result is cut.

    Args:
        in_thought: whether the prompt ends in an open thought.
    """

    def __init__(self, in_thought: bool = False):
        self._channels = Channels()
        self._kind = "reasoning" if in_thought else "normal"
        self._channels.feed(self._kind, "")
        self._held = ""  # may be the beginning of a marker of calls
        self._in_string = False

    @property
    def is_in_thought(self) -> bool:
        return self._channels.is_in_thought

    @property
    def is_at_opening(self) -> bool:
        """Whether the text so far ends in a channel that has no name yet."""
        return self._channels.is_at_opening

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the content that are certain with the next text."""
        text = self._held + text
        found = []
        at = 0
        for marker in _OF_CALL.finditer(text):
            if self._kind != "tool":
                if marker[0] == tool_calls.START:
                    found += self._channels.feed(self._kind, text[at : marker.start()])
                    at, self._kind, self._in_string = marker.start(), "tool", False
            elif marker[0] == tool_calls.QUOTE:
                self._in_string = not self._in_string
            elif marker[0] == tool_calls.END and not self._in_string:
                found += self._channels.feed("tool", text[at : marker.end()])
                at, self._kind = marker.end(), "normal"
        text = text[at:]
        begins = beginning(text, _OF_CALLS)
        self._held = text[begins:]
        return _by_kind([*found, *self._channels.feed(self._kind, text[:begins])])

    def finish(self) -> tuple[str, str]:
        """The reasoning and the content in what was held back in case it became a marker."""
        held, self._held = self._held, ""
        return _by_kind([*self._channels.feed(self._kind, held), *self._channels.finish()])


def _by_kind(found: list[tuple[str | None, str]]) -> tuple[str, str]:
    reasoning = "".join(text for kind, text in found if kind == "reasoning")
    return reasoning, "".join(text for kind, text in found if kind != "reasoning")
