"""The markup in which Gemma 4 calls tools, and its parser.

A call is ``call:NAME{key:value,...}``, between ``<|tool_call>`` and ``<tool_call|>``. What Google's
chat templates write, and the model therefore learned: keys stand bare, strings between two
``<|"|>`` with nothing escaped, objects in braces, arrays in brackets, numbers as Python prints
them, ``true`` and ``false``, and ``null`` (``None`` in the templates of April and May 2026).

Models also write what they know from JSON and Python, so the parser takes more: white space, a
comma before a closing bracket, quoted keys, strings in ``"`` and ``'``, ``True`` and ``False``,
numbers such as ``+3`` and ``.5``, and bare words, which are strings.

The markup leaves some things open; here

- a string ends at the next ``<|"|>``, so none can hold that token;
- a ``"`` or ``'`` closes where a delimiter follows it, so that ``"a "b" c"`` is one string;
- a colon belongs to a bare key when a name stands before it and a quoted, bracketed or literal
  value after it (``xml:lang:true``), and else the first one ends the key (``time:12:30``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from ..patch import Finding
from .markers import beginning

START = "<|tool_call>"
END = "<tool_call|>"
QUOTE = '<|"|>'
START_ID, END_ID, QUOTE_ID = 48, 49, 52

_MARKER = re.compile("|".join(map(re.escape, (START, END, QUOTE))))
_AROUND = re.compile("|".join(map(re.escape, (START, END))))
_DEEPEST = 200  # json.dumps of the result has to fit into a thread's stack
_SHOWN = 30  # characters around an error

_SPACES = " \t\r\n"
_LITERALS = {
    "null": None,
    "None": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
_ESCAPES = {**{mark: mark for mark in "\"'\\/"}, **dict(zip("bfnrt", "\b\f\n\r\t", strict=True))}

_HEAD = re.compile(r"""call:\s*([^\s{}()\[\]<>,"'=]+)\s*\{""")
_SPACE = re.compile(r"[ \t\r\n]*")
_STRUCTURE = re.compile(r'[,{}\[\]]|<\|"\|>|\Z')
_NAMES = re.compile(r"[\w.$ -]*(?::(?:[^\W\d]|\$)[\w.$-]*)*")
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_NEXT_KEY = re.compile(r"[ \t\r\n](?:[^\W\d]|\$)[\w.$-]*:(?!//)")
# the plain forms at C's pace: a key and a literal, a key before structure, numbers or rows of them
_PLAIN = re.compile(
    r"([\w.$-]+):(?:(?:(-?(?:0|[1-9][0-9]{0,99}))|(-?(?:0|[1-9][0-9]{0,99})\.[0-9]+)"
    r'|(true|false|null))(?:,[ \t\r\n]*|(?=}))|(?=<\|"\|>|[{\[]))'
)
_CONVERT = {1: None, 2: int, 3: float, 4: _LITERALS.get}  # by group of _PLAIN
_DECIMAL = r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
_NUMBERS = re.compile(
    rf"(?:(?:{_DECIMAL}|\[{_DECIMAL}(?:,[ \t\r\n]*{_DECIMAL})*\])(?:,[ \t\r\n]*|(?=]))){{1,4096}}"
)
_ESCAPE = re.compile(r"\\(?:(u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)|(.))", re.DOTALL)
# an escape, or the closing quote
_CLOSING = {
    (mark, follows): re.compile(rf"\\.|{mark}(?=\s*[{follows}])", re.DOTALL)
    for mark in "\"'"
    for follows in (":", r",}\]")
}


class ToolCallError(ValueError):
    """Text that is no tool call, or only the beginning of one.

    Attributes:
        text: all of the text.
        position: where in it the parser stopped.
        calls: the calls that are complete before that, as ``parse`` gives them.
        rest: the text from the call on that is not.
    """

    def __init__(self, problem: str, text: str, position: int, calls: list[dict], rest: str):
        before = text[max(0, position - _SHOWN) : position]
        after = text[position : position + _SHOWN]
        super().__init__(f"{problem} at character {position}, between {before!r} and {after!r}")
        self.text = text
        self.position = position
        self.calls = calls
        self.rest = rest


class _Malformed(Exception):
    """What is wrong, and where."""


def parse(text: str) -> list[dict[str, Any]]:
    """The calls in ``text``, in order, as ``{"name": str, "arguments": dict}``.

    What stands before, between and after calls, markers for example, is passed over. The arguments
    are what ``json.loads`` gives; no number is infinite or NaN. Takes time linear in the text.

    Raises:
        ToolCallError: there is no call, or one is malformed, truncated or nested too deep.
    """
    calls: list[dict[str, Any]] = []
    start = text.find("call:")
    try:
        if start < 0:
            raise _Malformed("no call:NAME{...}", 0)
        while start >= 0:
            head = _HEAD.match(text, start)
            if head is None:
                raise _Malformed("expected call:NAME{", start)
            arguments, end = _object(text, head.end(), 1)
            calls.append({"name": head[1], "arguments": arguments})
            start = text.find("call:", end)
    except _Malformed as malformed:
        problem, position = malformed.args
        raise ToolCallError(problem, text, position, calls, text[max(start, 0) :]) from None
    return calls


def probe(parse_call: Callable[[str], dict[str, Any]]) -> Finding:
    """Whether a host's parser, which may raise ValueError, reads calls as ``parse`` does."""
    expected = {f"call:{name}{{}}": {"name": name, "arguments": {}} for name in _NAMES_OF_TOOLS}
    for written, arguments in _ARGUMENTS.items():
        expected[f"call:f{{{written}}}"] = {"name": "f", "arguments": arguments}
    misread = []
    for text, call in expected.items():
        try:
            understood = parse_call(text) == call
        except ValueError:
            understood = False
        if not understood:
            misread.append(text)
    if misread:
        return Finding(
            True, f"{len(misread)} of {len(expected)} calls misread, such as {misread[0]}"
        )
    return Finding(False, f"all {len(expected)} calls understood")


_NAMES_OF_TOOLS = ("get-weather", "ns.get", "mcp:srv/get")
_ARGUMENTS = {
    "my-key:1": {"my-key": 1},
    "$ref:1": {"$ref": 1},
    "my key:1": {"my key": 1},
    '<|"|>k<|"|>:1': {"k": 1},
    "a:None": {"a": None},
    "a:True": {"a": True},
    "a:+3": {"a": 3},
    "a:1, b:2": {"a": 1, "b": 2},
    "a:1,": {"a": 1},
    "a:'x'": {"a": "x"},
    "a:word": {"a": "word"},
    'a:<|"|>x } y<|"|>': {"a": "x } y"},
}


class Reader:
    """Takes the calls out of a text as it comes.

    A call ends at an ``END`` that is in no string. What ``parse`` refuses is content, without the
    markers around it; where a string is not closed, the call ends at the first ``END`` after all,
    and what comes behind that is read again. How the text is cut into parts changes nothing but
    where the result is cut. Takes time linear in the text, as ``parse`` does: no more than
    ``AGAIN`` characters are read again, and what would be read beyond that is content.

    Args:
        parse: what stands between two markers to calls of any form; raises ``ToolCallError``.
    """

    AGAIN = 1 << 20

    def __init__(self, parse: Callable[[str], list[Any]] = parse):
        self._parse = parse
        self._call: list[str] | None = None  # the parts of a call that may go on
        self._tail = ""  # may be the beginning of a marker
        self._in_string = False
        self._passed_end = False
        self._again = self.AGAIN

    @property
    def is_holding(self) -> bool:
        """Whether text was fed that ``finish`` will tell what to make of."""
        return self._call is not None or bool(self._tail)

    @property
    def is_behind_end(self) -> bool:
        """Whether the call that is held goes on behind an ``END`` in a string."""
        return self._passed_end

    def feed(self, text: str) -> tuple[str, list[Any]]:
        """The content and the calls that are certain with the next text."""
        content: list[str] = []
        calls: list[Any] = []
        left = [(self._tail + text, 0)]  # texts to read and where, the next one last
        while left:
            text, at = left.pop()
            while mark := _MARKER.search(text, at):
                piece, at = text[at : mark.start()], mark.end()
                if not self._take(piece, mark[0], content):
                    continue
                if again := self._end_call(END, content, calls):
                    left.append((text, at))
                    text, at = again, 0
            self._hold(text[at:], content)
        return "".join(content), calls

    def finish(self) -> tuple[str, list[Any]]:
        """The content and the calls in what was held back."""
        content: list[str] = []
        calls: list[Any] = []
        while self._call is not None:
            self._call.append(self._tail)
            self._tail = ""
            whole = "".join(self._call)
            ending = END if whole.endswith(END) else ""
            self._call = [whole.removesuffix(END)]
            more, calls_of_more = self.feed(self._end_call(ending, content, calls))
            content.append(more)
            calls += calls_of_more
        content.append(self._tail)
        self._tail = ""
        return "".join(content), calls

    def _take(self, piece: str, marker: str, content: list[str]) -> bool:
        """Take in a text and the marker behind it; whether that ends a call."""
        if self._call is None:
            content.append(piece)
            if marker == START:
                self._call = []
            else:
                content.append(marker)
            return False
        self._call.append(piece)
        if marker == END and not self._in_string:
            return True
        self._call.append(marker)
        self._in_string ^= marker == QUOTE
        self._passed_end |= marker == END
        return False

    def _hold(self, text: str, content: list[str]) -> None:
        """Take in a text without a marker, but for what may be the beginning of one."""
        is_content = self._call is None
        begins = beginning(text, (START,) if is_content else (END, QUOTE))
        (content if is_content else self._call).append(text[:begins])
        self._tail = text[begins:]

    def _end_call(self, ending: str, content: list[str], calls: list[Any]) -> str:
        """Read the call that is held; the text, with its ``ending``, that is to be read again."""
        call = "".join(self._call)
        self._call, self._in_string, self._passed_end = None, False, False
        try:
            calls += self._parse(call)
            return ""
        except ToolCallError as error:
            calls += error.calls
            unread, _, again = error.rest.partition(END)
        content.append(unread)
        if again:
            again += ending
            self._again -= len(again)
            if self._again < 0:
                content.append(_AROUND.sub("", again))
                return ""
        return again


# each takes the text and the position of what it reads, and gives that and the position behind it


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    result = {}
    at = _skip(text, at)
    while not text.startswith("}", at):
        if plain := _PLAIN.match(text, at):
            key = plain[1]
            at = plain.end()
            if convert := _CONVERT[plain.lastindex]:
                result[key] = convert(plain[plain.lastindex])
                continue
        else:
            key, at = _key(text, at)
        result[key], at = _value(text, at, depth)
        at = _next(text, at, "}")
    return result, at + 1


def _array(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    result = []
    at = _skip(text, at)
    while not text.startswith("]", at):
        if numbers := _NUMBERS.match(text, at):
            result += json.loads(f"[{numbers[0].rstrip(_SPACES + ',')}]")
            at = numbers.end()
            continue
        value, at = _value(text, at, depth)
        result.append(value)
        at = _next(text, at, "]")
    return result, at + 1


def _skip(text: str, at: int) -> int:
    """The position of the next character that is no white space."""
    return _SPACE.match(text, at).end() if text[at : at + 1].isspace() else at


def _next(text: str, at: int, closing: str) -> int:
    """The position of the next item, or of ``closing``."""
    mark = text[at : at + 1]
    if mark.isspace():
        at = _skip(text, at)
        mark = text[at : at + 1]
    if mark == ",":
        return _skip(text, at + 1)
    if mark != closing:
        raise _Malformed(f"expected ',' or {closing!r}", at)
    return at


def _key(text: str, at: int) -> tuple[str, int]:
    if text.startswith((QUOTE, '"', "'"), at):
        key, at = _string(text, at, ":")
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise _Malformed("expected ':'", at)
        return key, _skip(text, at + 1)
    structure = _STRUCTURE.search(text, at)
    run = text[at : structure.start()]
    if ":" not in run:
        raise _Malformed("expected a key and ':'", at)
    length = _length_of_key(run, structure[0] in ("{", "[", QUOTE))
    return run[:length].strip(_SPACES), _skip(text, at + length + 1)


def _length_of_key(run: str, opens: bool) -> int:
    """How much of a text without structure is the key; ``opens``: a bracket or quote follows."""
    if quoted := re.search(r""":\s*["']""", run):
        return quoted.start()
    last = run.rindex(":")
    value = run[last + 1 :].strip(_SPACES)
    if opens and not value:
        return last
    if (value in _LITERALS or _NUMBER.fullmatch(value)) and _NAMES.fullmatch(run, 0, last):
        return last
    return run.index(":")


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    opening = text[at : at + 1]
    if opening in ("{", "["):
        if depth == _DEEPEST:
            raise _Malformed(f"nested deeper than {_DEEPEST}", at)
        return (_object if opening == "{" else _array)(text, at + 1, depth + 1)
    if opening in ('"', "'") or text.startswith(QUOTE, at):
        return _string(text, at, r",}\]")
    end = _STRUCTURE.search(text, at).start()
    word = text[at:end].strip(_SPACES)
    if not word:
        raise _Malformed("expected a value", at)
    if following := _NEXT_KEY.search(word):
        raise _Malformed("expected ',' or a quoted string", at + following.start())
    return _literal(word), end


def _literal(word: str) -> Any:
    """The value of a word without quotes: itself where it is no literal of any kind."""
    if word in _LITERALS:
        return _LITERALS[word]
    number = _NUMBER.fullmatch(word)
    if number is None:
        return word
    if number.lastindex:  # a fraction or an exponent
        return float(word) if math.isfinite(float(word)) else word
    try:
        return int(word)
    except ValueError:  # more digits than Python converts
        return word


def _string(text: str, at: int, follows: str) -> tuple[str, int]:
    """A string in any of the quotes; ``follows`` are the delimiters that may come after it."""
    if text.startswith(QUOTE, at):
        end = text.find(QUOTE, at + len(QUOTE))
        if end < 0:
            raise _Malformed("a string is not closed", at)
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    for closing in _CLOSING[text[at], follows].finditer(text, at + 1):
        if closing[0] == text[at]:
            return _ESCAPE.sub(_unescaped, text[at + 1 : closing.start()]), closing.end()
    raise _Malformed("a string is not closed", at)


def _unescaped(escape: re.Match) -> str:
    if escape[1]:
        return json.loads(f'"\\{escape[1]}"')  # pairs of surrogates are one character
    return _ESCAPES.get(escape[2], escape[0])
