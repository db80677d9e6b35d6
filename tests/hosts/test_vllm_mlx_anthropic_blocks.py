"""An Anthropic stream of vllm-mlx has one open block at a time, each of what it holds."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.gemma4.channels import END, THOUGHT
from mlx_gemma4_patches.hosts.vllm_mlx import serving
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.anthropic_blocks"

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.reasoning.gemma4_parser", reason="no parser for Gemma 4 in this vllm-mlx"
)

PARTS = {"text_delta": "text", "thinking_delta": "thinking"}


@pytest.fixture(autouse=True)
def _server_of_gemma4(monkeypatch):
    from vllm_mlx import server
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    monkeypatch.setattr(server, "_reasoning_parser", Gemma4ReasoningParser())


def events(*texts):
    """The events of a stream, without the message's id, which is another each time."""
    told = serving.anthropic_stream(list(texts), "stop")
    assert told[0].pop("message")["content"] == []
    return told


def blocks(*texts):
    """Type and text of each block, as a client reads them that takes events at their word."""
    read, is_open = [], False
    for event in events(*texts):
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == len(read)
            is_open = True
            block = event["content_block"]
            read.append([block["type"], block[block["type"]]])
        elif event["type"] == "content_block_delta":
            assert is_open and event["index"] == len(read) - 1
            part = PARTS[event["delta"]["type"]]
            assert part == read[-1][0]
            read[-1][1] += event["delta"][part]
        elif event["type"] == "content_block_stop":
            assert is_open and event["index"] == len(read) - 1
            is_open = False
    assert not is_open
    return read


class TestAnthropicBlocks(PatchContract):
    id = ID

    def untouched(self):
        """Text, and at most one thought before it."""
        return [
            events("Hi", " there."),
            events(f"{THOUGHT}\n", "hm", END, "Hi", " there."),
            events(f"{THOUGHT}\n", "hm"),
            events(""),
        ]


SAID = {
    (f"{THOUGHT}\na{END}", "b"): ["thinking a", "text b"],
    ("b", f"{THOUGHT}\nc{END}"): ["text b", "thinking c"],
    ("b", f"{THOUGHT}\nc", END, "d", "e"): ["text b", "thinking c", "text de"],
    (f"{THOUGHT}\na{END}", "b", f"{THOUGHT}\nc{END}", "d"): [
        *("thinking a", "text b", "thinking \nc", "text d")  # as in one block of both
    ],
}


@pytest.mark.parametrize("texts", SAID)
def test_what_is_said_is_in_blocks_in_its_order(texts):
    with patched(ID):
        assert [" ".join(block) for block in blocks(*texts)] == SAID[texts]


def test_without_the_patch_a_thought_behind_text_is_in_no_block_of_its_own():
    with stock(ID), pytest.raises(AssertionError):
        blocks("b", f"{THOUGHT}\nc{END}", "d")


def test_other_models_are_streamed_as_they_are(monkeypatch):
    from vllm_mlx import server
    from vllm_mlx.reasoning import get_parser

    monkeypatch.setattr(server, "_reasoning_parser", get_parser("deepseek_r1")())
    texts = ["<think>hm", "</think>", "Hi", "<think>", "so", "</think>"]
    with patched(ID):
        seen = events(*texts)
    with stock(ID):
        assert seen == events(*texts)
