"""An Anthropic stream of vllm-mlx says why it ended."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.hosts.vllm_mlx import serving
from mlx_gemma4_patches.patches.vllm_mlx import anthropic_stop_reason
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.anthropic_stop_reason"

pytest.importorskip("vllm_mlx")


def events(finish_reason):
    """The events of a stream, without the message's id, which is another each time."""
    told = serving.anthropic_stream(['Hi, "stop_reason": "end_turn"'], finish_reason)
    del told[0]["message"]
    return told


def reason(finish_reason):
    return next(e for e in events(finish_reason) if e["type"] == "message_delta")["delta"]


class TestAnthropicStopReason(PatchContract):
    id = ID

    def untouched(self):
        return events("stop")


def test_a_stream_that_is_cut_says_so():
    with patched(ID):
        assert reason("length") == {"stop_reason": "max_tokens", "stop_sequence": None}
    with stock(ID):
        assert reason("length") == {"stop_reason": "end_turn", "stop_sequence": None}


def test_other_models_are_streamed_as_they_are(monkeypatch):
    monkeypatch.setattr(anthropic_stop_reason, "is_gemma4", lambda engine: False)
    with patched(ID):
        seen = events("length")
    with stock(ID):
        assert seen == events("length")
