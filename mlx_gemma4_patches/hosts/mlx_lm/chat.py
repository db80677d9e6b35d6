"""Stand-ins for the probes of the chat: a tokenizer, and the way the server splits a text."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ...gemma4 import channels, tool_calls
from ...patch import NotApplicable

_MARKERS = {
    **{"<|channel>": channels.OPENING_ID, channels.END: channels.END_ID},
    **{tool_calls.START: tool_calls.START_ID, tool_calls.END: tool_calls.END_ID},
    tool_calls.QUOTE: tool_calls.QUOTE_ID,
}
_IDS = {**_MARKERS, "thought": 1000, "response": 1001}  # and letters
_SPLIT = re.compile("|".join(map(re.escape, _IDS)) + "|.", re.DOTALL)


def require_gemma4() -> None:
    """Raises NotApplicable on a release that is older than Gemma 4."""
    if find_spec("mlx_lm.models.gemma4") is None:
        raise NotApplicable("this mlx-lm has no Gemma 4")


def spell(text: str) -> list[tuple[int, str]]:
    """The tokens of a text, ids and texts, as ``tokenizer`` has them."""
    return [(_IDS.get(part, 2000 + ord(part[0])), part) for part in _SPLIT.findall(text)]


def text(tokens: list[int]) -> str:
    """The text of ids of ``spell``."""
    names = {token: part for part, token in _IDS.items()}
    return "".join(names.get(token) or chr(token - 2000) for token in tokens)


def split(text: str) -> dict[str, str]:
    """What the host's server takes a text of Gemma 4 for: its texts by state, such as reasoning."""
    host = importlib.import_module("mlx_lm.generate")  # the package has a function of that name
    by_text = hasattr(host, "TextStateMachine")
    found: dict[str, str] = {}
    for name, part in (_split_text if by_text else _split_tokens)(host, spell(text)):
        found[name] = found.get(name, "") + part
    return {name: part for name, part in found.items() if part}


def _split_tokens(host: Any, tokens: list[tuple[int, str]]) -> list[tuple[str, str]]:
    """Up to 0.31.3; the server makes the machine, and blanks the text of what matches."""
    wrapper = tokenizer()
    call, thought = wrapper.tool_call_start_tokens, wrapper.think_start_tokens
    machine = host.SequenceStateMachine(
        {
            "normal": [(thought, "reasoning"), (call, "tool")],
            "reasoning": [(wrapper.think_end_tokens, "normal")],
            "tool": [(wrapper.tool_call_end_tokens, "normal")],
        }
    )
    state, found = machine.make_state(), []
    for token, text in tokens:
        state, match, name = machine.match(state, token)
        found.append((name, text))
        for i in range(-len(match or ()), 0):
            found[i] = (found[i][0], "")
    return found


def _split_text(host: Any, tokens: list[tuple[int, str]]) -> list[tuple[str, str]]:
    machine = host.make_text_state_machine(tokenizer())
    state, found = machine.make_state(), []
    for _, text in tokens:
        if hasattr(machine, "split"):
            state, segments = machine.split(state, text)
            found += segments
        else:  # 0.32.0
            state, text, name = machine.step(state, text)
            found.append((name, text))
    _, text, name = machine.flush(state)
    return [*found, (name, text)]


def tokenizer(gemma4: bool = True, template: Callable[..., str] | None = None) -> Any:
    """The host's ``TokenizerWrapper``, of a Gemma 4 or of a model that thinks by ``<think>``.

    Its ``apply_chat_template`` gives back the messages and what the template would be told, or
    what ``template(messages, add_generation_prompt, enable_thinking)`` makes of them.
    """
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    vocabulary = _MARKERS if gemma4 else {"<think>": 1, "</think>": 2}
    names = ("tool_call_start", "tool_call_end")
    markers = dict(zip(names, (tool_calls.START, tool_calls.END), strict=True)) if gemma4 else {}
    return TokenizerWrapper(_Tokenizer(vocabulary, template), lambda inner: None, **markers)


class _Tokenizer:
    """As much of a Hugging Face tokenizer as ``TokenizerWrapper`` asks for."""

    chat_template = "as it is given"
    eos_token_id = 1

    def __init__(self, vocabulary: dict[str, int], template: Callable[..., str] | None):
        self._vocabulary = vocabulary
        self._template = template

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary

    def encode(self, text: str, **options: Any) -> list[int]:
        return [token for token, _ in spell(text)]

    def apply_chat_template(self, messages: list, **options: Any) -> Any:
        if self._template is not None:
            told = (options.get(name) for name in ("add_generation_prompt", "enable_thinking"))
            made = self._template(messages, *told)
            return self.encode(made) if options.get("tokenize", True) else made
        prompt = _Prompt()
        prompt.messages, prompt.options = messages, options
        return prompt


class _Prompt(list):
    """No tokens, and what they would be made of."""

    messages: list
    options: dict[str, Any]
