"""The parser of tool calls is found, and with it the server answers, beside any mlx-lm.

That the server answers is in test_mlx_vlm_server.py and in all tests of its chat.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")

TEMPLATES = ("", "<|tool_call> <tool_call|>", "<start_function_call>", "[TOOL_CALLS]")


class TestToolParserLookup(PatchContract):
    id = "mlx_vlm.tool_parser_lookup"

    def untouched(self):
        """mlx-lm's own lookup, as mlx-lm asks it."""
        from mlx_lm.tokenizer_utils import _infer_tool_parser

        asked = [SimpleNamespace(chat_template=text, get_vocab=dict) for text in TEMPLATES]
        takes_text = "chat_template" in inspect.signature(_infer_tool_parser).parameters
        return [_infer_tool_parser(one.chat_template if takes_text else one) for one in asked]
