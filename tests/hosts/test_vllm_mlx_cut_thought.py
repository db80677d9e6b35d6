"""A thought of Gemma 4 that ends too early is no answer of vllm-mlx's server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4.channels import END, THOUGHT
from tests.hosts.chat import call
from tests.hosts.contract import PatchContract, patched

ID = "vllm_mlx.cut_thought"

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.reasoning.gemma4_parser", reason="no parser for Gemma 4 in this vllm-mlx"
)


@pytest.fixture(autouse=True)
def _parsers_of_gemma4(monkeypatch):
    from vllm_mlx import server
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    if not hasattr(server, "_extract_reasoning_and_tool_calls"):
        pytest.skip("this vllm-mlx looks for calls first, and for thoughts if there is none")
    monkeypatch.setattr(server, "_reasoning_parser", Gemma4ReasoningParser())
    monkeypatch.setattr(server, "_enable_auto_tool_choice", True)
    monkeypatch.setattr(server, "_tool_call_parser", "gemma4")
    monkeypatch.setattr(server, "_tool_parser_instance", None)


def split(text):
    """Reasoning, content and names of calls, as the server splits an answer with tools."""
    from vllm_mlx import server

    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    request = SimpleNamespace(
        tools=[{"type": "function", "function": function}],
        tool_choice="auto",
        model_dump=lambda **how: {},
        response_format=None,
    )
    reasoning, content, calls = server._extract_reasoning_and_tool_calls(text, request)
    return reasoning, content or "", [call.function.name for call in calls or ()]


class TestCutThought(PatchContract):
    id = ID

    def untouched(self):
        """Thoughts that end, and those of other models."""
        from vllm_mlx import server

        texts = ("Hi", f"{THOUGHT}\nhm{END}Hi", f"{THOUGHT}\nhm{END}{call('a:1')}")
        analysis = "<|channel|>analysis<|message|>hm<|end|><|channel|>commentary to=functions.f"
        take_out = getattr(server, "_strip_harmony_analysis_blocks", None)
        return [split(text) for text in texts], take_out and take_out(analysis)


def test_a_thought_that_is_cut_is_reasoning_alone():
    with patched(ID):
        assert split(f"{THOUGHT}\nhm") == ("hm", "", [])
