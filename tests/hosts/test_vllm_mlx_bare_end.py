"""With thinking off, an answer of vllm-mlx does not begin with the end of a thought."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.gemma4.channels import END, THOUGHT
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.bare_end"

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.reasoning.gemma4_parser", reason="no parser for Gemma 4 in this vllm-mlx"
)


@pytest.fixture(autouse=True)
def _parser_of_gemma4(monkeypatch):
    from vllm_mlx import server
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    if not hasattr(server, "_explicit_reasoning_markers_present"):
        pytest.skip("this vllm-mlx looks for no thoughts with thinking off")
    monkeypatch.setattr(server, "_reasoning_parser", Gemma4ReasoningParser())


def content(text):
    from vllm_mlx import server

    return server._extract_reasoning_and_tool_calls(text, allow_reasoning=False)[1]


class TestBareEnd(PatchContract):
    id = ID

    def untouched(self):
        """Thoughts that are opened, an end that is text, and parsers of other models."""
        from vllm_mlx.reasoning import get_parser
        from vllm_mlx.server import _explicit_reasoning_markers_present as present

        texts = ("Hi", f"{THOUGHT}\nhm{END}Hi", f"Gemma ends by {END}.")
        others = [present(f"{END}Hi", get_parser(name)()) for name in ("qwen3", "deepseek_r1")]
        return [content(text) for text in texts], others


@pytest.mark.parametrize("before", ["", "\n"])
def test_an_end_that_the_answer_begins_with_is_not_shown(before):
    with patched(ID):
        assert content(f"{before}{END}Hi").strip() == "Hi"
    with stock(ID):
        assert END in content(f"{before}{END}Hi")
