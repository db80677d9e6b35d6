"""A marker in a user's text is a text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import channels
from tests.hosts import batching
from tests.hosts.contract import PatchContract, patched, skip_unless_needed, stock

server = pytest.importorskip("vllm_mlx.server")

ID = "vllm_mlx.placeholder_text"


def prepared(*messages: dict[str, Any], opening: int | None = channels.OPENING_ID) -> Any:
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda _: opening)
    engine = SimpleNamespace(is_mllm=True, tokenizer=tokenizer)
    return server._prepare_chat_messages(engine, list(messages))


class TestPlaceholderText(PatchContract):
    id = ID

    def untouched(self):
        marked = {"role": "user", "content": "what is <|image|>"}
        return [
            list(prepared({"role": "user", "content": "a <| b <image >"})),
            list(prepared(batching.message("a < b", batching.image(0)))),
            list(prepared(marked, opening=None)),  # another model
        ]


@pytest.mark.parametrize("marker", ["<|image|>", "<|audio|>", "<|video|>", "<|image>", "<audio|>"])
def test_it_is_read_as_a_text(marker: str) -> None:
    skip_unless_needed(ID)
    said = [
        {"role": "user", "content": f"is {marker}"},
        {"role": "assistant", "content": f"it is {marker}"},
        batching.message(f"and {marker}", batching.image(0)),
    ]
    with patched(ID):
        messages, *_ = prepared(*said)
    assert marker not in str(messages)
    assert str(messages).count(marker.replace("<", "< ")) == 3
    with stock(ID):
        messages, *_ = prepared(*said)
    assert str(messages).count(marker) == 3
