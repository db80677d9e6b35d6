"""Markup of Gemma 4 shows in answers of the server, or cuts a tool call in two.

What the user sees: ``content`` that begins with ``<|channel>response``, and ``reasoning`` with an
empty line. Where the model leaves its thought by ``<|channel>response``, the answer stays in
``reasoning``. A call with ``<tool_call|>`` in a string, such as code about Gemma 4, ends there: no
call, and the rest of the string as ``content``.

Why: mlx-lm splits at the beginning and the end of thoughts and calls, as it does for all models.
What Gemma 4's markup is beside it does not know: names of channels, newlines that belong to them,
and strings in which a marker is text.

The fix: up to 0.31.3 mlx-lm splits tokens (``SequenceStateMachine``), and the markers it does not
know become matches as its own are. Later it splits text (``TextStateMachine``, from
ml-explore/mlx-lm#1501), and its segments go through ``gemma4.channels``. In a string neither looks
for the end of a call. It can be deleted when mlx-lm has a parser of Gemma 4's markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ...gemma4 import channels
from ...gemma4.channels import RESPONSE, THOUGHT
from ...gemma4.tool_calls import END, END_ID, QUOTE, QUOTE_ID, START
from ...hosts.mlx_lm import chat
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_START_TOKENS = "mlx_lm.tokenizer_utils:TokenizerWrapper.think_start_tokens"
_TOKENS = "mlx_lm.generate:SequenceStateMachine"
_TEXT = "mlx_lm.generate:TextStateMachine"
_ANSWERS = {
    f"{RESPONSE}\nHi": {"normal": "Hi"},
    f"{THOUGHT}\nhm{channels.END}Hi": {"reasoning": "hm", "normal": "Hi"},
    f"{THOUGHT}\nhm{RESPONSE}\nHi": {"reasoning": "hm", "normal": "Hi"},
    f"{START}call:f{{a:{QUOTE}{END}{QUOTE}}}{END}": {"tool": f"call:f{{a:{QUOTE}{END}{QUOTE}}}"},
}


def probe() -> Finding:
    chat.require_gemma4()
    wrong = {}
    for answer, expected in _ANSWERS.items():
        found = chat.split(answer)
        if found != expected:
            wrong[answer] = found
    for answer, found in wrong.items():
        seen = f"{answer!r} is taken for {found}"
        return Finding(True, f"{len(wrong)} of {len(_ANSWERS)} answers wrong, such as: {seen}")
    return Finding(False, f"all {len(_ANSWERS)} answers are split rightly")


def apply(surgery: Surgery) -> None:
    if f"{_TOKENS}.match" in surgery.targets:
        surgery.wrap_property(_START_TOKENS, _with_spellings)
        surgery.wrap(f"{_TOKENS}.make_state", _with_a_token_reader)
        surgery.wrap(f"{_TOKENS}.match", _with_markup_of_tokens)
        return
    surgery.wrap(f"{_TEXT}.make_state", _with_a_text_reader)
    surgery.wrap(f"{_TEXT}.flush", _with_what_is_held)
    if f"{_TEXT}.split" in surgery.targets:
        surgery.wrap(f"{_TEXT}.split", _with_markup_of_text)
    else:
        surgery.wrap(f"{_TEXT}.step", _with_markup_of_one_state)


class _State(tuple):
    """A state of the host's machine that is read for Gemma 4's markup, too."""

    reader: Any

    @classmethod
    def of(cls, state: tuple, reader: Any) -> _State:
        new = cls(state)
        new.reader = reader
        return new


# up to 0.31.3: tokens

_Ids = tuple[int, ...]
_SPELLINGS: dict[_Ids, tuple[_Ids, _Ids]] = {}  # of RESPONSE and a newline, by that of THOUGHT


def _with_spellings(fget: Callable) -> Callable:
    """Note how a tokenizer spells what the machine, which sees ids alone, has to know."""

    def think_start_tokens(self):
        tokens = fget(self)
        if is_gemma4(self) and tokens not in _SPELLINGS:
            response, newline = (
                tuple(self._tokenizer.encode(text, add_special_tokens=False))
                for text in (RESPONSE, "\n")
            )
            _SPELLINGS[tokens] = response, newline
        return tokens

    return think_start_tokens


def _with_a_token_reader(original: Callable) -> Callable:
    def make_state(self):
        state = original(self)
        for thought, (response, newline) in _SPELLINGS.items():
            if _begins_thoughts(thought, state):
                # the server blanks no more tokens than the longest marker it knows has
                response = response if len(response) <= len(thought) else ()
                return _State.of(state, _TokenReader(state[0], thought, response, newline))
        return state

    return make_state


def _begins_thoughts(sequence: Any, state: tuple) -> bool:
    """Whether ``sequence``, in content, leads the host's machine to reasoning."""
    trie, names = state[2].get("normal", ({}, ()))
    for item in sequence:
        trie = trie.get(item, {})
    found, index = trie.get("__match__", ((), 0))
    return found == tuple(sequence) and names[index] == "reasoning"


def _with_markup_of_tokens(original: Callable) -> Callable:
    def match(state, x):
        if not isinstance(state, _State):
            return original(state, x)
        following, sequence, name = state.reader.match(original, state, x)
        return _State.of(following, state.reader), sequence, name

    return match


class _TokenReader:
    """Matches what the host's machine does not; one for each text that is generated."""

    def __init__(self, name: str, thought: _Ids, response: _Ids, newline: _Ids):
        self._thought = thought
        self._response = response
        self._newline = newline
        self._latest: _Ids = ()
        self._in_string = False
        self._at_newline = name == "reasoning"  # one that comes next is the marker's
        self._reasoned = 0  # tokens of thoughts so far

    def match(self, host: Callable, state: tuple, token: int) -> tuple:
        """What the host's ``match`` gives: the new state, the tokens of a marker, its name."""
        name, _, states = state
        if name == "tool":
            if self._in_string and token == END_ID:
                return state, None, name
            self._in_string ^= token == QUOTE_ID
            return host(state, token)
        self._in_string = False
        at_newline, self._at_newline = self._at_newline, False
        if at_newline and (token,) == self._newline:
            return state, self._newline, name
        self._latest = (*self._latest, token)[-len(self._thought) :]
        if self._ends_in(self._response):
            self._reasoned -= (name == "reasoning") * (len(self._response) - 1)
            self._at_newline = True
            return _start(states, "normal"), self._response, "normal"
        if name == "normal" and token == channels.END_ID:
            return _start(states, name), (token,), name
        if name == "reasoning" and self._ends_in(self._thought):
            self._reasoned -= len(self._thought) - 1
            self._at_newline = not self._reasoned
            return _start(states, name), self._thought, name
        following = host(state, token)
        if following[2] == "reasoning":
            self._reasoned += name == "reasoning"
            self._at_newline = not self._reasoned
        return following

    def _ends_in(self, marker: _Ids) -> bool:
        return bool(marker) and self._latest[-len(marker) :] == marker


def _start(states: dict, name: str) -> tuple:
    return name, states[name][0], states


# from 0.32.0 on: text


def _with_a_text_reader(original: Callable) -> Callable:
    def make_state(self, *args, **kwargs):
        state = original(self, *args, **kwargs)
        return _State.of(state, _TextReader()) if _begins_thoughts(THOUGHT, state) else state

    return make_state


def _with_markup_of_text(original: Callable) -> Callable:
    def split(state, text):
        if not isinstance(state, _State):
            return original(state, text)
        return state.reader.split(original, state, text)

    return split


def _with_markup_of_one_state(original: Callable) -> Callable:
    """0.32.0 takes each part of a text to be of the state in which it ends."""

    def split(state, text):
        state, text, name = original(state, text)
        return state, [(name, text)]

    def step(state, text):
        if not isinstance(state, _State):
            return original(state, text)
        state, segments = state.reader.split(split, state, text)
        return state, "".join(text for _, text in segments), segments[-1][0]

    return step


def _with_what_is_held(original: Callable) -> Callable:
    def flush(state):
        following, text, name = original(state)
        if not isinstance(state, _State):
            return following, text, name
        segments = state.reader.finish(name, text)
        return following, "".join(text for _, text in segments), segments[-1][0]

    return flush


class _TextReader:
    """Reads on in what the host's machine has split; one for each text that is generated."""

    def __init__(self):
        self._channels = channels.Channels()
        self._tail = ""  # of the text so far, too short for a quote
        self._in_string = False

    def split(self, host: Callable, state: tuple, text: str) -> tuple[_State, list]:
        """What the host's ``split`` gives: the new state, and names and texts of segments."""
        found = []
        for piece, ends_in_quote in self._pieces(text):
            if self._in_string:
                segments = [(state[0], piece)]
            else:
                state, segments = host(state, piece)
            if ends_in_quote:
                self._in_string = state[0] == "tool" and not self._in_string
            for segment in segments:
                found += self._channels.feed(*segment)
        return _State.of(state, self), found

    def finish(self, name: str, text: str) -> list[tuple[str, str]]:
        return [*self._channels.feed(name, text), *self._channels.finish()]

    def _pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """``text`` cut behind every quote, also behind one that began in an earlier text."""
        seen = len(self._tail)
        whole = self._tail + text
        self._tail = whole[1 - len(QUOTE) :]
        begin = seen
        for quote in re.finditer(re.escape(QUOTE), whole):
            yield whole[begin : quote.end()], True
            begin = quote.end()
        yield whole[begin:], False


PATCH = Patch(
    id="mlx_lm.channel_leak",
    targets=(
        _START_TOKENS,
        *(f"{_TOKENS}.{method}" for method in ("make_state", "match")),
        *(f"{_TEXT}.{method}" for method in ("make_state", "split", "step", "flush")),
    ),
    apply=apply,
    probe=probe,
)
