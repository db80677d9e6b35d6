"""The channels of Gemma 4: ``<|channel>thought\\n`` reasoning ``<channel|>``, then the answer.

The answer has no channel of its own, but models now and then open one, ``<|channel>response\\n``,
after the thought or instead of its end. A name and the newline behind it are part of the marker.
"""

from __future__ import annotations

import re

from . import tool_calls

THOUGHT = "<|channel>thought"
RESPONSE = "<|channel>response"
END = "<channel|>"
OPENING_ID, END_ID = 100, 101  # of <|channel>, and END

OPENING = "<|channel>"
_MARKERS = (THOUGHT, RESPONSE, END)
_MARKER = re.compile("|".join(map(re.escape, _MARKERS)))
# by kind of text: the markers that end it, and the kind that follows
_ENDS = {
    "normal": {THOUGHT: "reasoning", tool_calls.START: "tool"},
    "reasoning": {END: "normal", tool_calls.START: "tool"},
    "tool": {tool_calls.END: "normal"},
}


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
                self._at_newline = False
        text = text[at:]
        begins = text.rfind("<")
        if begins < 0 or not _may_become_a_marker(text[begins:]):
            begins = len(text)
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


class Splitter:
    """Splits a text, as it comes, into reasoning and content; for hosts that do not.

    Calls of tools stay in the content, with their markup, also those in a thought, which they end.
    Reasoning is without white space around it, content without newlines before it. How the text is
    cut into parts changes nothing but where the result is cut.

    Args:
        in_thought: whether the text begins in a thought, which the prompt has opened.
    """

    def __init__(self, in_thought: bool = False):
        self._kind = "reasoning" if in_thought else "normal"
        self._channels = Channels()
        self._held = ""  # may be the beginning of a marker
        self._spaces = ""  # behind the reasoning so far
        self._has_reasoned = self._has_answered = False

    @property
    def in_thought(self) -> bool:
        return self._kind == "reasoning"

    @property
    def is_at_opening(self) -> bool:
        """Whether the text so far ends in a channel that has no name yet."""
        return (self._held or self._channels._held).startswith(OPENING)

    def feed(self, text: str) -> tuple[str, str]:
        """Reasoning and content of the next part."""
        found = []
        text = self._held + text
        while True:
            ends = _ENDS[self._kind]
            first = re.search("|".join(map(re.escape, ends)), text)
            if first is None:
                break
            found += self._taken(text[: first.start()])
            following = ends[first[0]]
            if "tool" in (self._kind, following):
                found.append(("tool", first[0]))
            self._kind = following
            text = text[first.end() :]
        begins = text.rfind("<")
        if begins < 0 or not _may_become_a_marker(text[begins:], tuple(ends)):
            begins = len(text)
        self._held = text[begins:]
        return self._together(found + self._taken(text[:begins]))

    def finish(self) -> tuple[str, str]:
        """What was held back in case it became a marker."""
        held, self._held = self._held, ""
        return self._together([*self._channels.feed(self._kind, held), *self._channels.finish()])

    def _taken(self, text: str) -> list[tuple[str | None, str]]:
        return self._channels.feed(self._kind, text)

    def _together(self, pieces: list[tuple[str | None, str]]) -> tuple[str, str]:
        reasoning = self._spaces + "".join(text for kind, text in pieces if kind == "reasoning")
        if not self._has_reasoned:
            reasoning = reasoning.lstrip()
        shown = reasoning.rstrip()
        self._spaces = reasoning[len(shown) :]
        content = "".join(text for kind, text in pieces if kind != "reasoning")
        if not self._has_answered:
            content = content.lstrip("\n")
        self._has_reasoned |= bool(shown)
        self._has_answered |= bool(content)
        return shown, content


def _may_become_a_marker(text: str, markers: tuple[str, ...] = _MARKERS) -> bool:
    return any(marker.startswith(text) and marker != text for marker in markers)
