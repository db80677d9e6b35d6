"""A thought that the chat template opens is streamed as reasoning by vllm-mlx."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4.channels import END, THOUGHT
from tests.hosts import chat, metal
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.opened_thought"

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.engine.chat_template_safety", reason="calls do not reach the chat template"
)

ASKED = [{"role": "user", "content": "Hi"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}
CALLED = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
ANSWERED = [*CALLED, {"role": "tool", "tool_call_id": "1", "content": "so"}]


class Template:
    chat_template = chat.TEMPLATE

    def apply_chat_template(self, messages, **options):
        import jinja2

        template = jinja2.Environment().from_string(self.chat_template)
        options = {key: value for key, value in options.items() if key != "tokenize"}
        return template.render(messages=messages, bos_token="<bos>", **options)


@pytest.fixture(autouse=True)
def _server_of_gemma4(monkeypatch):
    metal.stand_in()
    from vllm_mlx import server
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    monkeypatch.setattr(server, "_reasoning_parser", Gemma4ReasoningParser())


def texts(messages, template=None, **options):
    """The texts of a stream of the engine."""
    from vllm_mlx.engine.batched import BatchedEngine

    async def stream_generate(**options):
        for text in ("", f"hm{END}", "Hi"):
            yield SimpleNamespace(new_text=text)

    engine = BatchedEngine.__new__(BatchedEngine)
    engine._loaded, engine._is_mllm, engine._model_name = True, False, "gemma-4"
    engine._processor, engine._tokenizer = None, template or Template()
    engine._compute_prefix_boundary = lambda *args, **kwargs: 0
    engine.stream_generate = stream_generate

    async def collected():
        return [o.new_text async for o in engine.stream_chat(messages=messages, **options)]

    return asyncio.run(collected())


class TestOpenedThought(PatchContract):
    id = ID

    def untouched(self):
        off = {"enable_thinking": False}
        return [
            texts(ASKED),
            texts(ANSWERED, enable_thinking=False),
            texts(ANSWERED, chat_template_kwargs=off),
            texts([*ANSWERED, *ASKED]),
            texts([*ASKED, ANSWERED[-1]]),
        ]


def test_the_stream_begins_with_what_the_template_wrote():
    expected = ["", f"{THOUGHT}\nhm{END}", "Hi"]
    with patched(ID):
        assert texts(ANSWERED) == expected
        assert texts([*ANSWERED, ANSWERED[-1]]) == expected
        assert texts(ANSWERED, chat_template_kwargs={"enable_thinking": True}) == expected


def test_a_server_without_the_parser_streams_what_was_said(monkeypatch):
    from vllm_mlx import server

    monkeypatch.setattr(server, "_reasoning_parser", None)
    with patched(ID):
        assert texts(ANSWERED) == ["", f"hm{END}", "Hi"]


def test_a_template_that_takes_no_results_changes_nothing():
    class Refusing(Template):
        def apply_chat_template(self, messages, **options):
            if messages is not ANSWERED and len(messages) == 3 and messages != ANSWERED:
                raise ValueError("no tools here")
            return "prompt"

    with patched(ID):
        assert texts(ANSWERED, Refusing()) == ["", f"hm{END}", "Hi"]


def test_without_the_patch_the_thought_is_content():
    with stock(ID):
        assert texts(ANSWERED) == ["", f"hm{END}", "Hi"]
