"""Requests that no client should send to a server, and some do."""

from __future__ import annotations

import json
from typing import Any

from mlx_gemma4_patches.gemma4.channels import END as CHANNEL_END
from mlx_gemma4_patches.gemma4.channels import RESPONSE, THOUGHT
from mlx_gemma4_patches.gemma4.tool_calls import END, QUOTE, START

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
_HI = {"role": "user", "content": "hi"}
_TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
_MARKERS = f"{START}call:f{{a:{QUOTE}{END}{THOUGHT}\n{CHANNEL_END}{RESPONSE}"
_HUGE = 10**400


def plain(model: str) -> bytes:
    """What every server answers."""
    return _body(model, {})


def of(model: str, paths: tuple[str, ...]) -> dict[str, tuple[str, bytes]]:
    """Path and body by name."""
    found = {}
    for name, fields in _FIELDS.items():
        found[name] = (CHAT, _body(model, fields))
    for name, body in _BODIES.items():
        for path in paths:
            found[f"{name}, {path}"] = (path, body)
    for path in paths:
        if path != CHAT:
            for name, fields in _OF_OTHERS.items():
                found[f"{name}, {path}"] = (path, _body(model, {"input": "hi", **fields}))
    return found


def _body(model: str, fields: dict[str, Any]) -> bytes:
    body = {"model": model, "messages": [_HI], "max_tokens": 2, "temperature": 0, **fields}
    return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()


def _deep(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


def _said(**fields: Any) -> dict[str, Any]:
    return {"messages": [_HI, {"role": "assistant", "content": "", **fields}, _HI]}


def _called(calls: Any) -> dict[str, Any]:
    return _said(tool_calls=calls)


def _function(**fields: Any) -> dict[str, Any]:
    return _called([{"id": "1", "type": "function", "function": {"name": "f", **fields}}])


_WRONG = {"null": None, "a string": "x", "a number": 5, "an object": {}, "a list": [], "true": True}

_FIELDS: dict[str, dict[str, Any]] = {
    "no messages": {"messages": ...},
    **{f"messages: {name}": {"messages": value} for name, value in _WRONG.items()},
    **{f"a message: {name}": {"messages": [value]} for name, value in _WRONG.items()},
    **{f"role: {n}": {"messages": [{**_HI, "role": v}]} for n, v in _WRONG.items()},
    **{f"content: {n}": {"messages": [{**_HI, "content": v}]} for n, v in _WRONG.items()},
    **{f"a part: {n}": {"messages": [{**_HI, "content": [v]}]} for n, v in _WRONG.items()},
    "a part without text": {"messages": [{**_HI, "content": [{"type": "text"}]}]},
    "text: null": {"messages": [{**_HI, "content": [{"type": "text", "text": None}]}]},
    "no image": {"messages": [{**_HI, "content": [{"type": "image_url", "image_url": None}]}]},
    "a part of no type": {"messages": [{**_HI, "content": [{"type": 5, "text": "hi"}]}]},
    "null bytes": {"messages": [{**_HI, "content": "a\0b\0"}]},
    "a lone surrogate": {"messages": [{**_HI, "content": "a\ud800b\udfff"}]},
    "markers": {"messages": [{**_HI, "content": _MARKERS * 40}]},
    "markers said before": _said(content=_MARKERS * 40),
    "a deep part": {"messages": [{**_HI, "content": _deep(200)}]},
    **{f"calls: {name}": _called(value) for name, value in _WRONG.items()},
    **{f"a call: {name}": _called([value]) for name, value in _WRONG.items()},
    **{f"a function: {name}": _called([{"function": v}]) for name, v in _WRONG.items()},
    **{f"name: {name}": _function(name=value, arguments="{}") for name, value in _WRONG.items()},
    **{f"arguments: {name}": _function(arguments=value) for name, value in _WRONG.items()},
    "arguments: an open brace": _function(arguments="{"),
    "arguments: a list in a string": _function(arguments="[1]"),
    "arguments: NaN": _function(arguments='{"a": NaN}'),
    "arguments: an object with NaN": _function(arguments={"a": float("nan")}),
    "arguments: a huge number": _function(arguments=f'{{"a": {_HUGE}}}'),
    "arguments: 5000 digits": _function(arguments='{"a": ' + "9" * 5000 + "}"),
    "arguments: deep": _function(arguments='{"a":' * 3000 + "1" + "}" * 3000),
    "arguments: null bytes": _function(arguments='{"a": "\\u0000\\ud800"}'),
    "arguments: markers": _function(arguments=json.dumps({"a": _MARKERS})),
    "a result of nothing": {"messages": [_HI, {"role": "tool", "content": "x"}]},
    "a result without content": {"messages": [_HI, {"role": "tool", "tool_call_id": 5}]},
    **{f"tools: {name}": {"tools": value} for name, value in _WRONG.items()},
    **{f"a tool: {name}": {"tools": [value]} for name, value in _WRONG.items()},
    **{f"a tool's function: {n}": {"tools": [{**_TOOL, "function": v}]} for n, v in _WRONG.items()},
    "a tool of a deep type": {"tools": [{**_TOOL, "function": {"parameters": _deep(200)}}]},
    **{f"max_tokens: {v!r:.9}": {"max_tokens": v} for v in (-1, 0, "x", 1.5, None, _HUGE)},
    **{
        f"temperature: {v!r:.9}": {"temperature": v}
        for v in (-1, "x", None, float("nan"), float("inf"), _HUGE)
    },
    **{f"stop: {v!r}": {"stop": v} for v in (5, "", [""], [5], [None], {}, "\ud800")},
    **{f"stream: {v!r}": {"stream": v} for v in ("x", 5, None)},
    **{f"logit_bias: {v!r}": {"logit_bias": v} for v in (5, {"x": 1}, {"-5": 1}, {"9999999": 1})},
    **{
        f"chat_template_kwargs: {v!r}": {"chat_template_kwargs": v}
        for v in (5, [], "x", {"enable_thinking": "x"}, {"messages": 5}, {"tokenize": True})
    },
    **{f"enable_thinking: {v!r}": {"enable_thinking": v} for v in ("x", 5, None, {})},
    **{f"seed: {v!r:.9}": {"seed": v} for v in (-1, "x", _HUGE)},
    **{f"logprobs: {v!r}": {"logprobs": v, "top_logprobs": v} for v in (-1, "x", 10**6)},
    "model: a number": {"model": 5},
    "model: null bytes": {"model": "a\0b"},
    "model: 1 MB": {"model": "x" * (1 << 20)},
    "a stop of 1 MB": {"stop": _MARKERS * ((1 << 20) // len(_MARKERS))},
}

# of /v1/messages and /v1/responses
_OF_OTHERS: dict[str, dict[str, Any]] = {
    **{f"system: {name}": {"system": value} for name, value in _WRONG.items()},
    **{f"thinking: {name}": {"thinking": value} for name, value in _WRONG.items()},
    "thinking: huge": {"thinking": {"type": "enabled", "budget_tokens": _HUGE}},
    **{f"messages: {name}": {"messages": value} for name, value in _WRONG.items()},
    **{f"input: {name}": {"input": value} for name, value in _WRONG.items()},
    **{f"a block: {n}": {"messages": [{**_HI, "content": [v]}]} for n, v in _WRONG.items()},
    "a use of a tool": _said(content=[{"type": "tool_use", "id": 5, "name": None, "input": 5}]),
    "a result of a tool": {
        "messages": [{**_HI, "content": [{"type": "tool_result", "tool_use_id": 5, "content": 5}]}]
    },
    "an item of no type": {"input": [{"type": 5}, None, 5]},
    "a call as input": {
        "input": [{"type": "function_call", "name": 5, "arguments": 5, "call_id": None}]
    },
    **{f"tools: {name}": {"tools": value} for name, value in _WRONG.items()},
    "a lone surrogate": {"messages": [{**_HI, "content": "\ud800"}], "input": "\ud800"},
    "markers": {"messages": [{**_HI, "content": _MARKERS * 40}], "input": _MARKERS * 40},
}

_BODIES: dict[str, bytes] = {
    "no body": b"",
    "an open brace": b"{",
    "no object": b"[1]",
    "null": b"null",
    "a BOM": b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}',
    "UTF-16": '{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'.encode("utf-16"),
    "no UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}], "max_tokens": 1}',
    "deep JSON": b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep JSON behind a lone backslash": b'{"x": "\\d", "messages":' + b"[" * 100_000,
    "lone backslashes": b'{"x": "' + b"\\d" * 500_000 + b'"',
    "5000 digits": b'{"max_tokens": ' + b"9" * 5000 + b"}",
    "NaN": b'{"max_tokens": NaN, "messages": NaN}',
    "keys twice": b'{"messages": [], "messages": 5, "model": 1, "model": null}',
    "null bytes": b"\0" * 1000,
    "1 MB of markers": (_MARKERS * ((1 << 20) // len(_MARKERS))).encode(),
}
