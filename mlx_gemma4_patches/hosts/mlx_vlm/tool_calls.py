"""Tool calls in answers of this host: which parser it has, and what it takes for a call."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from ...gemma4.tool_calls import END, QUOTE, START, Reader, ToolCallError, parse

PARSERS = ("mlx_vlm.tools.parsers.gemma4", "mlx_vlm.tool_parsers.gemma4")  # from 0.7.1, before
_MARKERS = re.compile("|".join(map(re.escape, (START, END, QUOTE))))
_END = re.compile(re.escape(END))


def host_parser() -> Any:
    """mlx-vlm's module for Gemma 4's calls; None where it leaves them to mlx-lm."""
    for name in PARSERS:
        with contextlib.suppress(ImportError):
            return import_module(name)
    return None


def without_markers(text: str) -> str:
    return _MARKERS.sub("", text)


class Answer:
    """An answer as it comes: content, and calls, each as its text.

    Args:
        parse_tool_call: the host's, which decides whether what stands between markers is a call.
    """

    def __init__(self, parse_tool_call: Callable[..., Any]):
        self._parse_tool_call = parse_tool_call
        self._reader = Reader(self._parse)
        self._is_over = False
        self._has_content = False
        self._calls = 0  # behind the content so far
        self._tail = ""  # of the text so far, which may be the beginning of a marker

    def feed(self, text: str, last: bool = False) -> Iterator[tuple[str, list[str]]]:
        seen, at = self._tail + text, len(self._tail)
        self._tail = seen[1 - len(END) :]
        for end in (found.end() for found in _END.finditer(seen)):
            yield self._reader.feed(seen[at:end])
            at = end
        yield self._reader.feed(seen[at:])
        if last:
            self._is_over = True
            content, calls = self._reader.finish()
            yield without_markers(content), calls

    def content(self, text: str, last: bool = False) -> str:
        """The content in the next text, with a space in place of each call between content."""
        shown = []
        for content, calls in self.feed(text, last):
            if content:
                shown.append(" " * self._calls + content)
                self._calls, self._has_content = 0, True
            if self._has_content:
                self._calls += len(calls)
        return "".join(shown)

    def _parse(self, call: str) -> list[str]:
        try:
            if self._is_over:  # nothing says that the call is complete but itself
                parse(call)
            else:
                self._parse_tool_call(call, None)
        except Exception as error:  # of any kind, as the host does
            rest = getattr(error, "rest", call)
            read = call.removesuffix(rest)
            rest = rest if self._is_over else without_markers(rest)
            raise ToolCallError("no call", call, 0, [read] if read else [], rest) from error
        return [call]
