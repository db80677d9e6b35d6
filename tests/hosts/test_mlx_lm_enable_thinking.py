"""With the opt-in patch Gemma 4 thinks only where a request asks for it."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.hosts.mlx_lm.chat import tokenizer
from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_lm.enable_thinking"

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"


class TestEnableThinking(PatchContract):
    id = ID

    def untouched(self):
        return [
            (which.apply_chat_template([], **asked).options, asked)
            for which, asked in (
                (tokenizer(gemma4=False), {}),
                (tokenizer(gemma4=False), {"enable_thinking": False}),
                (tokenizer(), {"enable_thinking": True}),
                (tokenizer(), {"enable_thinking": False}),
            )
        ]


def test_the_server_asks_for_thoughts_only_where_the_request_does(chat_server):
    def prompt_tokens(**asked):
        reply = chat_server.reply("Ok", chat_template_kwargs=asked)
        return reply["usage"]["prompt_tokens"]

    think = len(chat_server.ids("<|turn>system\n<|think|><turn|>\n"))
    with patched(ID):
        assert prompt_tokens() == prompt_tokens(enable_thinking=False)
        assert prompt_tokens() == prompt_tokens(enable_thinking=True) - think
    with stock(ID):
        assert prompt_tokens() == prompt_tokens(enable_thinking=True)
