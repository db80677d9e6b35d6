"""vllm-mlx's Anthropic endpoints take the JSON that Claude Code sends."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.anthropic_escapes"

pytest.importorskip("vllm_mlx")


def parsed(text: str, path: str = "/v1/messages"):
    """What a handler behind ``path`` gets of a body."""
    from starlette.requests import Request

    async def receive():
        return {"type": "http.request", "body": text.encode()}

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    return asyncio.run(Request(scope, receive).json())


class TestAnthropicEscapes(PatchContract):
    id = ID

    def untouched(self):
        seen = []
        for text in (r'{"a": "C:\\s\n\"é\u00e9\ud83d\ude00\/"}', "[1]", "", "{", r'{"a": "\n}'):
            try:
                seen.append(parsed(text))
            except ValueError as error:
                seen.append(repr(error))
        return seen


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"\d"', r"\d"),
        (r'"C:\\s \d"', r"C:\s \d"),
        (r'"C:\usr"', r"C:\usr"),
        (r'"\u00e9 \u00g9"', r"é \u00g9"),
        (r'"\\\d \\\\d"', r"\\d \\d"),
        (r'"a\n\"b\" \(c\)"', 'a\n"b" \\(c\\)'),
    ],
)
def test_a_backslash_that_begins_no_escape_is_one(text, expected, path):
    with patched(ID):
        assert parsed(f'{{"é": {text}}}', path) == {"é": expected}


def test_other_endpoints_stay_strict():
    with patched(ID), pytest.raises(json.JSONDecodeError):
        parsed(r'{"a": "\d"}', "/v1/chat/completions")


def test_without_the_patch_such_json_is_refused():
    with stock(ID), pytest.raises(json.JSONDecodeError):
        parsed(r'{"a": "C:\\s \d"}')
