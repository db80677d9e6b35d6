"""Texts that a model may say and a parser may choke on, each as long as one likes."""

from __future__ import annotations

from collections.abc import Callable

from mlx_gemma4_patches.gemma4.channels import END as CHANNEL_END
from mlx_gemma4_patches.gemma4.channels import OPENING, RESPONSE, THOUGHT
from mlx_gemma4_patches.gemma4.tool_calls import END, QUOTE, START

# each gives a text of n repetitions

OF_CALLS: dict[str, Callable[[int], str]] = {
    "a string with structure": lambda n: f"call:f{{a:{QUOTE}" + 'x{"},:' * n + QUOTE + "}",
    "a word": lambda n: "call:f{a:" + "x" * n + "}",
    "quotes in keys": lambda n: "call:f{" + "a:'\"," * n,
    "escaped quotes": lambda n: "call:f{" + "'a\\'" * n,
    "quotes and spaces": lambda n: "call:f{a:'" + "'    " * n,
    "colons": lambda n: "call:f{" + "a: : " * n + "}",
    "words": lambda n: "call:f{a:" + " a" * n + ":}",
    "almost quotes": lambda n: "call:f{a:" + '<|"|' * n,
    "escapes": lambda n: 'call:f{a:"' + "\\u0041" * n + '"}',
    "heads": lambda n: "call:" * n,
    "empty calls": lambda n: "call:f{}" * n,
    "rows": lambda n: "call:f{a:[" + "[1]," * n + "]}",
    "nested rows": lambda n: "call:f{a:[" + "[[1],]," * n + "]}",
    "numbers and a word": lambda n: "call:f{a:[" + "1," * n + "x]}",
    "a number": lambda n: "call:f{a:" + "9" * n + "}",
    "names with colons": lambda n: "call:f{" + "a:b:c:" * n + "1}",
    "braces": lambda n: "call:f{" + "{" * n,
    "brackets": lambda n: "call:f{a:" + "[" * n,
    "white space": lambda n: "call:f{a:" + " \n" * n + "1}",
}
# a string in which every END is text, behind whichever START one begins to read
_NEVER_ENDS = f'{START}call:f{{a:[" , {QUOTE}{END}{QUOTE} , "'


def _string(text: str) -> str:
    return f"call:f{{a:{QUOTE}{text}{QUOTE}}}"


CALLS_IN_ANSWERS: dict[str, Callable[[int], str]] = {
    f"a call of {name}": lambda n, of=of: START + of(n) + END for name, of in OF_CALLS.items()
}
OF_ANSWERS: dict[str, Callable[[int], str]] = {
    **CALLS_IN_ANSWERS,
    "plain text": lambda n: "Hello there.\n" * n,
    "calls": lambda n: f"{START}call:f{{a:1}}{END}" * n,
    "calls and text": lambda n: f"Hi {START}call:f{{a:{QUOTE}x{QUOTE}}}{END}" * n,
    "empty calls": lambda n: f"{START}{END}" * n,
    "malformed calls": lambda n: f"{START}call:f{{a:{END}" * n,
    "openings": lambda n: START * n,
    "ends": lambda n: END * n,
    "quotes": lambda n: START + QUOTE * n,
    "ends in strings": lambda n: f"{START}call:f{{a:{QUOTE}" + END * n,
    "ends in a string that closes": lambda n: (
        f"{START}call:f{{a:{QUOTE}" + END * n + f"{QUOTE}}}{END}"
    ),
    "calls behind an open string": lambda n: START + QUOTE + f"{END}{START}call:f{{a:1}}" * n,
    "strings that do not close": lambda n: f"{START}call:f{{a:{QUOTE}x}}{END}" * n,
    "calls that go on to the end": lambda n: f"{START}{QUOTE}{END}{QUOTE}" * n,
    "arrays that go on to the end": lambda n: _NEVER_ENDS * n,
    "almost openings": lambda n: "<|tool_cal" * n,
    "almost ends": lambda n: START + "<tool_call|" * n,
    "angles": lambda n: "<" * n,
    "thoughts": lambda n: f"{THOUGHT}\na{CHANNEL_END}b" * n,
    "openings of thoughts": lambda n: THOUGHT * n,
    "openings of channels": lambda n: OPENING * n,
    "ends of thoughts": lambda n: CHANNEL_END * n,
    "responses": lambda n: f"{RESPONSE}\n" * n,
    "a thought of spaces": lambda n: f"{THOUGHT}\na" + " " * n,
    "a thought of newlines": lambda n: f"{THOUGHT}\n" + "\n" * n,
    "calls in thoughts": lambda n: f"{THOUGHT}\n{START}call:f{{}}{END}" * n,
}


def long(shape: Callable[[int], str], length: int) -> str:
    """A text of a shape with about ``length`` characters."""
    return shape(length // (len(shape(2)) - len(shape(1))))
