"""A tool call that cannot be read vanishes from the server's answer.

What the user sees: where ``max_tokens`` cuts a call, or the model writes one that is malformed,
0.31.2 drops the connection. Later releases answer ``finish_reason`` "tool_calls" with no call and
no content, which agents take for a call. On 0.31.3 a call that the end of the turn closes instead
of ``<tool_call|>`` vanishes, too, even a complete one.

Why: the server logs what its parser refuses and drops the text; 0.31.2 does not catch the error.
On 0.31.3 the token that stops has no state, and the text before it is a call by the last state.

The fix: the calls that can be read are answered, and the rest ends ``content``, without markers,
which would be tokens in the next prompt; ``finish_reason`` is "stop" where no call was made. It can
be deleted when mlx-lm answers such text.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

from ...gemma4.tool_calls import END, START, Reader, ToolCallError
from ...hosts.mlx_lm import chat
from ...patch import Finding, Patch
from ...settings import log
from ...surgery import Surgery

_PARSER = "mlx_lm.tool_parsers.gemma4"
_FORMAT = "mlx_lm.server:ToolCallFormatter.__call__"
_HANDLE = "mlx_lm.server:APIHandler.handle_completion"
_CUT = "call:f{a:"


def probe() -> Finding:
    chat.require_gemma4()
    lost = []
    logging.disable(logging.WARNING)
    try:
        for reason in ("length", "stop"):
            try:
                choice = _answer(_CUT, reason)
            except ValueError:
                lost.append("an error")
                continue
            if choice["message"].get("content") != _CUT or choice["finish_reason"] != reason:
                lost.append(f"no text and finish_reason {choice['finish_reason']!r}")
    finally:
        logging.disable(logging.NOTSET)
    given = " or ".join(lost) or "its text"
    return Finding(bool(lost), f"the unfinished call {_CUT} is answered with {given}")


def _answer(call: str, reason: str) -> dict[str, Any]:
    """The server's choice where generation ends inside of a tool call."""
    from mlx_lm import server
    from mlx_lm.tool_parsers.gemma4 import parse_tool_call

    class Handler(server.APIHandler):
        stream, object_type, wfile = False, "chat.completion", io.BytesIO()
        logprobs, top_logprobs = False, 0

        def __init__(self, context, responses):
            model = SimpleNamespace(tokenizer=chat.tokenizer())
            self.response_generator = SimpleNamespace(
                model_provider=model, generate=lambda *args, **kwargs: (context, responses)
            )

        def __getattr__(self, name):
            return None  # the parameters of the request

        def send_response(self, *args):
            pass

        send_header = end_headers = _set_cors_headers = send_response

    context = SimpleNamespace(
        tool_parser=parse_tool_call, prompt=[], prompt_cache_count=0, stop=lambda: None
    )
    empty = {field.name: None for field in fields(server.Response)} | {"text": ""}
    state = None if reason == "stop" else "tool"
    parts = [{"text": call, "state": "tool"}, {"finish_reason": reason, "state": state}]
    if "state" not in empty:
        from mlx_lm.generate import TextStateMachine

        context.text_sm = TextStateMachine({"normal": [(START, "tool")], "tool": []})
        context.initial_state = "normal"
        parts = [{"text": START + call}, {"finish_reason": reason}]
    handler = Handler(context, [server.Response(**empty | part) for part in parts])
    handler.handle_completion(SimpleNamespace(tools=None), [])
    return json.loads(handler.wfile.getvalue())["choices"][0]


def apply(surgery: Surgery) -> None:
    surgery.wrap(_FORMAT, _with_what_is_lost)
    surgery.wrap(_HANDLE, _with_lost_text)


class _Calls(list):
    """Formatted calls, and what the answer needs to know of them and of those before."""

    def __init__(self, calls: Iterable[dict], lost: list[str], are_none: bool):
        super().__init__(calls)
        self.lost = lost  # the texts of those that could not be read
        self.are_none = are_none


def _with_what_is_lost(original: Callable) -> Callable:
    def __call__(self, tool_calls):
        parser = self._tool_parser
        if getattr(parser, "__module__", None) != _PARSER:
            return original(self, tool_calls)
        before = getattr(self, "gemma4_calls", _Calls([], [], True))

        def parse(text, tools):
            calls, unread = _read(parser, text, tools)
            before.lost.append(unread)
            return calls

        self._tool_parser = parse
        try:
            calls = original(self, tool_calls)
        finally:
            self._tool_parser = parser
        self.gemma4_calls = _Calls(calls, before.lost, before.are_none and not calls)
        return self.gemma4_calls

    return __call__


def _read(parser: Callable, text: str, tools: Any) -> tuple[list[dict], str]:
    """The calls in ``text``, and what of it ``parser`` refuses."""

    def parse(call: str) -> list[dict]:
        try:
            made = parser(call, tools)
        except ValueError as error:
            log.warning("a tool call that cannot be read is answered as text: %s", error)
            if isinstance(error, ToolCallError):
                raise
            raise ToolCallError("no call", call, 0, [], call) from error
        return made if isinstance(made, list) else [made]

    reader = Reader(parse)
    unread, calls = reader.feed(f"{START}{text}{END}")
    rest, more = reader.finish()
    return calls + more, unread + rest


def _with_lost_text(original: Callable) -> Callable:
    def handle_completion(self, *args, **kwargs):
        respond, generator = self.generate_response, self.response_generator

        def generate_response(text, finish_reason, *args, tool_calls=None, **kwargs):
            if isinstance(tool_calls, _Calls) and finish_reason is not None:
                text += "".join(tool_calls.lost)
                if finish_reason == "tool_calls" and tool_calls.are_none:
                    finish_reason = "stop"
            return respond(text, finish_reason, *args, tool_calls=tool_calls, **kwargs)

        self.generate_response = generate_response
        self.response_generator = _Generator(generator)
        try:
            return original(self, *args, **kwargs)
        finally:
            del self.generate_response
            self.response_generator = generator

    return handle_completion


class _Generator:
    """The host's generator, whose last response is in the state it stops in."""

    def __init__(self, generator: Any):
        self._generator = generator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def generate(self, *args: Any, **kwargs: Any) -> tuple[Any, Iterable[Any]]:
        context, responses = self._generator.generate(*args, **kwargs)
        if getattr(context.tool_parser, "__module__", None) == _PARSER:
            responses = _in_states(responses)
        return context, responses


def _in_states(responses: Iterable[Any]) -> Iterator[Any]:
    state = None
    for response in responses:
        if hasattr(response, "state"):  # up to 0.31.3
            if response.state is None:
                response = replace(response, state=state)
            state = response.state
        yield response


PATCH = Patch(id="mlx_lm.tool_call_lost", targets=(_FORMAT, _HANDLE), apply=apply, probe=probe)
