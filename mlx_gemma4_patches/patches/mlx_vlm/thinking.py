"""Thoughts of Gemma 4 leak into the server's answers, or answers into its thoughts.

What the user sees: all of a second thought in ``content``, with its markup, or ``content`` that
begins with ``<|channel>response``; where the model leaves its thought that way, the answer is in
``reasoning``. So is a call that the model makes in a thought. A stream's ``reasoning`` begins with
a newline. Up to 0.6.5 a stream of a request with ``enable_thinking`` has all of an answer without a
thought in ``reasoning``.

Why: the server splits at one beginning and one end of a thought, as it does for all models; and up
to 0.6.5 it takes ``enable_thinking`` to mean that the prompt has opened the thought, which
Gemma 4's does only after the result of a tool.

The fix: ``gemma4.channels`` splits answers to Gemma 4's prompts, which are told by ``<|turn>``. It
can be deleted when mlx-vlm has a parser of Gemma 4's markup. 0.5.0 and 0.6.0 have this fault too,
in the middle of a function that answers requests, and 0.4.x splits nothing: doctor advises to
upgrade.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ...gemma4.channels import END, OPENING, RESPONSE, THOUGHT, Turn
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MODULE = "mlx_vlm.server.responses_state"
_STATE = f"{_MODULE}:ThinkingStreamState"
_SPLIT = f"{_MODULE}:_split_thinking"
_IS_OPEN = f"{_MODULE}:prompt_has_open_thinking"  # from 0.6.6 on
_TEMPLATE = "mlx_vlm.prompt_utils:get_chat_template"  # the end of apply_chat_template
_TURN = "<|turn>"
_PROMPT: ContextVar[str | None] = ContextVar("the prompt of Gemma 4's that is answered")

_ANSWERS = {
    f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d": ("a\nc", "bd"),
    f"{RESPONSE}\nHi": ("", "Hi"),
    f"{THOUGHT}\nhm{RESPONSE}\nHi": ("hm", "Hi"),
}


def probe() -> Finding:
    host = None
    with contextlib.suppress(ImportError):
        from mlx_vlm.server import responses_state as host
    if not hasattr(host, "ThinkingStreamState"):
        raise NotApplicable("this mlx-vlm splits no thoughts, or in the middle of a request")

    token = _PROMPT.set(f"{_TURN}model\n")
    try:
        wrong = []
        for text, expected in _ANSWERS.items():
            reasoning, content = host._split_thinking(text)
            deltas = [host.ThinkingStreamState().feed(text)]
            streamed = tuple(
                "".join(getattr(delta, kind) or "" for delta in deltas)
                for kind in ("reasoning", "content")
            )
            if not (reasoning or "", content) == streamed == expected:
                wrong.append(text)
    finally:
        _PROMPT.reset(token)
    if wrong:
        return Finding(
            True, f"{len(wrong)} of {len(_ANSWERS)} answers misread, such as {wrong[0]!r}"
        )
    return Finding(False, f"all {len(_ANSWERS)} answers are split into thought and text")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TEMPLATE, _noting_the_prompt)
    if _IS_OPEN in surgery.targets:  # a stream may be made in another context than its prompt
        surgery.wrap(_IS_OPEN, _noting_the_prompt)
    surgery.wrap(f"{_STATE}.__init__", _with_splitter)
    surgery.wrap(f"{_STATE}.feed", _by_splitter)
    surgery.wrap(_SPLIT, _by_splitter_at_once)


def _noting_the_prompt(original: Callable) -> Callable:
    """Of what makes the prompt, or is given it."""

    def noting(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        prompt = made if isinstance(made, str) else kwargs.get("prompt", *args[:1])
        _PROMPT.set(prompt if isinstance(prompt, str) and _TURN in prompt else None)
        return made

    return noting


def _is_opened_by(prompt: str) -> bool:
    return prompt.rstrip().endswith(THOUGHT)


def _with_splitter(original: Callable) -> Callable:
    def __init__(self, enable_thinking=False, *args, **kwargs):
        prompt = _PROMPT.get(None)
        opened = enable_thinking if prompt is None else _is_opened_by(prompt)
        original(self, opened, *args, **kwargs)
        self.gemma4_splitter = None if prompt is None else _Answer(opened)

    return __init__


def _by_splitter(original: Callable) -> Callable:
    is_told_the_last = "last" in inspect.signature(original).parameters  # from 0.6.13 on

    def feed(self, text, last=False):
        more = (last,) if is_told_the_last else ()
        splitter = getattr(self, "gemma4_splitter", None)
        if splitter is None:
            return original(self, text, *more)
        was_in_thought = splitter.is_in_thought
        parts = [splitter.feed(text or "")]
        if last or not (is_told_the_last or splitter.is_at_opening):
            parts.append(splitter.finish())
        delta = original(self, "", *more)
        delta.reasoning, delta.content = _together(parts)
        delta.thinking_closed = was_in_thought and not splitter.is_in_thought
        self.in_thinking = splitter.is_in_thought
        return delta

    return feed


class _Answer(Turn):
    """As mlx-vlm answers: no white space around reasoning, no newlines before content."""

    def __init__(self, in_thought: bool):
        super().__init__(in_thought)
        self._spaces: list[str] = []  # behind the reasoning so far
        self._has_reasoned = self._has_answered = False

    def feed(self, text: str) -> tuple[str, str]:
        return self._trimmed(*super().feed(text))

    def finish(self) -> tuple[str, str]:
        return self._trimmed(*super().finish())

    def _trimmed(self, reasoning: str, content: str) -> tuple[str, str]:
        if not self._has_reasoned:
            reasoning = reasoning.lstrip()
        shown = reasoning.rstrip()
        spaces = reasoning[len(shown) :]
        if shown:
            shown = "".join(self._spaces) + shown
            self._spaces = []
        self._spaces.append(spaces)
        if not self._has_answered:
            content = content.lstrip("\n")
        self._has_reasoned |= bool(shown)
        self._has_answered |= bool(content)
        return shown, content


def _together(parts: list[tuple[str, str]]) -> tuple[str | None, str | None]:
    reasoning, content = ("".join(pieces) for pieces in zip(*parts, strict=True))
    return reasoning or None, content or None


def _by_splitter_at_once(original: Callable) -> Callable:
    def split_thinking(text, *args, **kwargs):
        prompt = _PROMPT.get(None)
        opened = prompt is not None and _is_opened_by(prompt)
        if prompt is None or not text or not (opened or OPENING in text or END in text):
            return original(text, *args, **kwargs)
        splitter = _Answer(opened)
        reasoning, content = _together([splitter.feed(text), splitter.finish()])
        return reasoning, (content or "").strip()

    return split_thinking


PATCH = Patch(
    id="mlx_vlm.thinking",
    targets=(_STATE, _SPLIT, _IS_OPEN),
    apply=apply,
    probe=probe,
)
