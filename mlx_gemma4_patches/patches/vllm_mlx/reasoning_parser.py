"""Answers of Gemma 4 lose their first word or their indentation, or are taken for reasoning.

What the user sees: an answer that begins with "response" or "thought" lacks that word, and the
indentation of its first line; in a stream, where deltas hold more than one token under load, parts
of the answer are missing or come as reasoning, also those of another request at the same time.

Why: the parser takes names of channels out wherever a line is one, strips what is left, splits at
the last ``<channel|>``, and takes a delta to hold one marker at most. Up to 0.4.0 all streams share
one parser and its state.

The fix: ``gemma4.channels`` splits. It can be deleted when vllm-mlx passes the probe. Up to 0.4.1
the server does not ask a parser for the end of a stream: there a stream that ends in what might
have become a marker, such as ``<``, lacks it. A stream shows the name of a thought that has no
marker of its own. Upstream: waybarrios/vllm-mlx#268 (the parser).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ...gemma4.channels import END, RESPONSE, THOUGHT, Turn
from ...gemma4.tool_calls import START
from ...hosts.vllm_mlx.streams import Streams
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PARSER = "vllm_mlx.reasoning.gemma4_parser:Gemma4ReasoningParser"
_WHOLE = f"{_PARSER}.extract_reasoning"
_STREAMED = f"{_PARSER}.extract_reasoning_streaming"
_FINISH = f"{_PARSER}.finalize_stream"
_NAME = "thought\n"
# an empty thought without its first marker, as models write where they go round in circles
_UNOPENED = re.compile(f"(?<={re.escape(END)}){_NAME}(?={re.escape(END)})")
_ANSWERS = {
    (f"{THOUGHT}\nhm{END}", "response time"): ("hm", "response time"),
    (f"{THOUGHT}\n", "hm", END, "thought"): ("hm", "thought"),
    (f"{THOUGHT}\nhm{END}", "    return"): ("hm", "    return"),
    ("Hi", f"{THOUGHT}\nhm{END}!"): ("hm", "Hi!"),
    (f"{THOUGHT}\nhm{RESPONSE}\nHi", "!"): ("hm", "Hi!"),
}


def probe() -> Finding:
    try:
        from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser
    except ImportError:
        raise NotApplicable("this vllm-mlx has no parser for Gemma 4") from None

    wrong = []
    for parts, expected in _ANSWERS.items():
        parser, text, seen = Gemma4ReasoningParser(), "", []
        parser.reset_state()
        for part in parts:
            seen.append(parser.extract_reasoning_streaming(text, text + part, part))
            text += part
        found = tuple(
            "".join(getattr(delta, name) or "" for delta in seen if delta)
            for name in ("reasoning", "content")
        )
        if found != expected:
            wrong.append(f"{list(parts)} gives {found}")
        elif parser.extract_reasoning(text) != expected:
            wrong.append(f"{text!r} gives {parser.extract_reasoning(text)}")
    if wrong:
        return Finding(True, f"{len(wrong)} of {len(_ANSWERS)} answers wrong, such as: {wrong[0]}")
    return Finding(False, f"all {len(_ANSWERS)} answers are split rightly")


def apply(surgery: Surgery) -> None:
    message = surgery.resolve("vllm_mlx.reasoning.base:DeltaMessage")

    def told(reasoning: str, content: str) -> Any:
        if reasoning or content:
            return message(reasoning=reasoning or None, content=content or None)
        return None

    def make_whole(original: Callable) -> Callable:
        def extract_reasoning(self, model_output):
            if not any(marker in model_output for marker in (THOUGHT, RESPONSE, END)):
                return None, model_output
            return _split(model_output)

        return extract_reasoning

    def make_streamed(original: Callable) -> Callable:
        def extract_reasoning_streaming(self, previous_text, current_text, delta_text):
            streams = Streams.of(self, _turn)
            turn = streams.take(previous_text)
            made = told(*turn.feed(delta_text))
            streams.put(current_text, turn)
            return made

        return extract_reasoning_streaming

    def finalize_stream(self):
        turn = Streams.of(self, _turn).latest
        return told(*turn.finish()) if turn else None

    surgery.wrap(_WHOLE, make_whole)
    surgery.wrap(_STREAMED, make_streamed)
    if _FINISH in surgery.targets:
        surgery.wrap(_FINISH, lambda original: finalize_stream)


def _turn(text: str) -> Turn:
    """The turn after ``text``."""
    turn = Turn()
    turn.feed(text)
    return turn


def _split(text: str) -> tuple[str | None, str | None]:
    """Reasoning and content of a whole text, None for what is not there."""
    text = _UNOPENED.sub("", text)
    before, end, _ = text.partition(END)
    is_opened = any(marker in before for marker in (THOUGHT, RESPONSE, START))
    in_thought = bool(end) and not is_opened  # then the prompt opened it
    turn = Turn(in_thought)
    pairs = (turn.feed(text.removeprefix(_NAME) if in_thought else text), turn.finish())
    reasoning, content = map("".join, zip(*pairs, strict=True))
    return reasoning.rstrip("\n") or None, content or None


PATCH = Patch(
    id="vllm_mlx.reasoning_parser",
    targets=(_WHOLE, _STREAMED, _FINISH),
    apply=apply,
    probe=probe,
)
