"""``python -m mlx_lm.server`` is patched, though Python runs that file as a module of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4.channels import RESPONSE, THOUGHT
from tests.hosts.chat import Chat, call, save
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_its_answers_are_those_of_the_patched_server(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    with serve("mlx_lm", folder, program="tests.hosts.chat_server") as post:

        def message(says: str) -> dict:
            body = Chat(0, folder).body(says)
            return post("/v1/chat/completions", body)["choices"][0]["message"]

        made = message(f"{THOUGHT}\nhm{call('a:None', 'ns.get')}")
        assert made["reasoning"] == "hm"
        assert made["tool_calls"][0]["function"] == {"name": "ns.get", "arguments": '{"a": null}'}
        assert made["content"] is None
        assert message(f"{RESPONSE}\nHi")["content"] == "Hi"
        assert message(call("a:{", "broken"))["content"] == "call:broken{a:{}"
