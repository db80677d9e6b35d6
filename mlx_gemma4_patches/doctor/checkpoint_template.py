"""The chat template, judged by what it renders.

Google has published three generations: of the launch (2 April 2026), of 9 April and after
(https://huggingface.co/google/gemma-4-31B-it/commit/e51e7dcdb6febd74c182fe0cb41c236363ae2ac5),
and of July 2026 (https://huggingface.co/google/gemma-4-31B-it/blob/main/chat_template.jinja). What
tells them apart is in ggml-org/llama.cpp#21704, ollama/ollama#17182 and noonghunna/club-3090#737.

A template is a program: it runs in jinja2's sandbox, in a process of its own with limits.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

from ..children import Ended, messages, tell
from .checkpoint_files import Folder

_SECONDS = 20
_BYTES = 2 << 30  # of memory for the sandbox
_LONGEST = 1 << 20  # characters; Google's have 17 000
LAUNCH, APRIL, JULY = "of the launch", "of April or May 2026", "of July 2026"

OTHER = "as none of Google's"

_SAID = "a_marker_of_ours"
_USER = {"role": "user", "content": "hi"}
_PLAIN = [_USER, {"role": "assistant", "content": "hello"}, _USER]


def _with_call(arguments: Any) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "1", "name": "f", "content": _SAID}
    return [_USER, {"role": "assistant", "content": "", "tool_calls": [call]}, result]


_CASES: dict[str, tuple[list[dict[str, Any]], bool]] = {  # messages, and whether to think
    "plain": (_PLAIN, False),
    "thinking": (_PLAIN, True),
    "tool": (_with_call({"x": None}), False),
    "tool, thinking": (_with_call({"x": None}), True),
    "string arguments": (_with_call('{"x": 1}'), False),
}


def look(folder: Folder) -> dict[str, Any]:
    """The template's generation and what it does; what that costs goes to the remarks."""
    text, source = _find(folder)
    if not text:
        folder.warn(
            "chat template",
            "there is none",
            "Chats are refused, or rendered without Gemma 4's turns. Base models have none.",
            "For an instruction-tuned model, copy chat_template.jinja from the original.",
        )
        return {}
    rendered = _render(folder, source)
    if not rendered:
        return {"source": source}
    does = {
        "renders_tool_results": _SAID in rendered.get("tool", "")
        and "<|tool_response>" in rendered["tool"],
        "thinks_when_asked": rendered.get("thinking") != rendered.get("plain"),
        "null_arguments_as": _null(rendered.get("tool", "")),
        "refuses_string_arguments": "string arguments" not in rendered,
        "empty_thoughts_in_history": "<|channel>thought\n<channel|>" in _history(rendered),
        "opens_thought_after_tool": "<|channel>" in rendered.get("tool, thinking", "")[-40:],
    }
    does["generation"] = _generation(does)
    _say(folder, does)
    return {"source": source, **does}


def _find(folder: Folder) -> tuple[str, str]:
    if text := folder.text("chat_template.jinja"):
        return text, "chat_template.jinja"
    for name in ("chat_template.json", "tokenizer_config.json"):
        named = folder.json(name).get("chat_template")
        if isinstance(named, str) and named:
            return named, name
    return "", ""


def _render(folder: Folder, source: str) -> dict[str, str]:
    """What each case renders to; a case that the template refuses is missing."""
    command = [sys.executable, "-m", __spec__.name, str(folder.path), source]
    rendered: dict[str, str] = {}
    try:
        environ = {**os.environ, "MLX_GEMMA4_PATCHES": "0"}
        for name, text in messages(command, environ, threading.Event(), _SECONDS):
            if name == "error":
                raise Ended(text)
            rendered[name] = text
    except Ended as error:
        means = "Hosts fail at it, or with it."
        do = "Take the template of the original."
        folder.problem("chat template", f"{source} cannot be rendered: {error}", means, do)
        return {}
    if "plain" not in rendered:
        means = "No chat can be rendered."
        folder.problem("chat template", f"{source} refuses a plain conversation", means)
        return {}
    return rendered


def _null(text: str) -> str:
    return next((word for word in ("null", "None") if f"x:{word}" in text), "neither")


def _history(rendered: dict[str, str]) -> str:
    """The prompt without its end, where a closed thought tells the model to answer at once."""
    return rendered["plain"].rpartition("<|turn>")[0]


def _generation(does: dict[str, Any]) -> str:
    if does["refuses_string_arguments"] and does["null_arguments_as"] == "null":
        return JULY
    if does["renders_tool_results"] and does["null_arguments_as"] == "None":
        return APRIL
    if not does["renders_tool_results"]:
        return LAUNCH
    return OTHER


def _say(folder: Folder, does: dict[str, Any]) -> None:
    costs = []
    if does["generation"] == OTHER and not does["refuses_string_arguments"]:
        costs.append("arguments of a tool call that are no object are rendered all the same")
    if not does["renders_tool_results"]:
        costs.append("results of tools do not reach the model as such")
    if does["null_arguments_as"] == "None":
        costs.append("a null in a tool call comes back as the text None")
    if does["empty_thoughts_in_history"]:
        costs.append("past answers get an empty thought the model never had")
    if not does["thinks_when_asked"]:
        costs.append("enable_thinking does nothing")
    stale = does["generation"] in (LAUNCH, APRIL)
    known = does["generation"] in (LAUNCH, APRIL, JULY)
    kind = f"as Google's {does['generation']}{', stale' if stale else ''}" if known else OTHER
    if costs:
        do = "Take chat_template.jinja from Google's repository of the same model."
        means = f"{'; '.join(costs)}.".capitalize()
        folder.warn("chat template", f"it renders {kind}", means, do)
    else:
        folder.fact("chat template", f"it renders {kind}")


def main(path: str, source: str) -> None:
    """The child: render every case, and tell what came of it."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit here
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        tell("error", "jinja2 is not installed")
        return
    text, _ = _find(_Quiet(Path(path), source))
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment.globals["raise_exception"] = refuse
    try:
        template = environment.from_string(text)
    except Exception as error:
        tell("error", f"{type(error).__name__}: {' '.join(str(error).split()):.200}")
        return
    for name, (conversation, thinks) in _CASES.items():
        with contextlib.suppress(Exception):
            tell(
                name,
                template.render(
                    messages=conversation,
                    enable_thinking=thinks,
                    add_generation_prompt=True,
                    bos_token="<bos>",
                )[:_LONGEST],
            )


class _Quiet(Folder):
    """The folder again, of which only the template's file is looked at."""

    def __init__(self, path: Path, source: str):
        self.path, self.names, self.remarks = path, frozenset({source}), []


if __name__ == "__main__":
    main(*sys.argv[1:])
