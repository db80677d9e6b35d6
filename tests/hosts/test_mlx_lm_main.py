"""``python -m mlx_lm.server``, which runs past patches of that one module, gets the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4.channels import RESPONSE, THOUGHT
from tests.hosts.chat import Chat, call, save
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_what_does_not_live_in_the_server_is_patched_there_too(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    with serve("mlx_lm", folder, program="tests.hosts.chat_server") as post:

        def message(says: str) -> dict:
            body = Chat(0, folder).body(says)
            return post("/v1/chat/completions", body)["choices"][0]["message"]

        made = message(f"{THOUGHT}\nhm{call('a:None', 'ns.get')}")
        assert made["reasoning"] == "hm"
        assert made["tool_calls"][0]["function"] == {"name": "ns.get", "arguments": '{"a": null}'}
        assert message(f"{RESPONSE}\nHi")["content"] == "Hi"
