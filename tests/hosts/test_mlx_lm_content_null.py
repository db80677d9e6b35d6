"""A whole answer of mlx-lm's server has ``content``, null where there is none."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.hosts.mlx_lm.chat import tokenizer
from mlx_gemma4_patches.patches.mlx_lm.content_null import respond
from tests.hosts.chat import call
from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"


class TestContentNull(PatchContract):
    id = "mlx_lm.content_null"

    def untouched(self):
        other = tokenizer(gemma4=False)
        return [
            respond(tokenizer(), "Hi"),
            respond(tokenizer(), "Hi", tool_calls=[{"id": "1"}], reasoning_text="hm"),
            respond(other, "Hi"),
            respond(other, "", tool_calls=[{"id": "1"}]),
        ]


@pytest.mark.parametrize("says", [call("a:1"), "<|channel>thought\nhm", ""])
def test_an_answer_without_text_says_null(chat_server, says):
    message = chat_server.reply(says)["choices"][0]["message"]
    assert message["content"] is None


@pytest.mark.parametrize("says", ["Hi", f"Hi{call('a:1')}"])
def test_an_answer_with_text_says_it(chat_server, says):
    assert chat_server.both(says)["content"] == "Hi"


def test_deltas_of_a_stream_have_the_content_they_had(chat_server):
    assert "content" not in chat_server.stream(call("a:1"))
