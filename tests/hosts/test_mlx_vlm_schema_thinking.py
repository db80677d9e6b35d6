"""An answer of mlx-vlm's server follows its schema with thinking on, and the thought is free."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4.channels import END, OPENING_ID, THOUGHT
from mlx_gemma4_patches.patches.mlx_vlm.schema_thinking import AfterThought
from tests.hosts.contract import PatchContract, patched, skip_unless_needed

ID = "mlx_vlm.schema_thinking"

pytest.importorskip("mlx_vlm.models.gemma4")
pytest.importorskip("llguidance")

pytest_plugins = "tests.hosts.mlx_vlm_chat"

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    **{"required": ["a"], "additionalProperties": False},
}
AS_JSON = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
}


class TestSchemaThinking(PatchContract):
    id = ID

    def untouched(self) -> Any:
        """The processors of requests without a schema or thinking, and of what is no Gemma 4."""
        generation = pytest.importorskip("mlx_vlm.server.generation")
        if not hasattr(generation.ResponseGenerator, "_make_logits_processors"):
            return None
        server = generation.ResponseGenerator.__new__(generation.ResponseGenerator)
        server.tokenizer = SimpleNamespace(encode=lambda text, **how: [9])
        seen = []
        schema = {"enable_thinking": True, "logits_processors": [_halved]}
        for parts, how in (
            ({}, schema),  # of who has no model yet
            ({"model": SimpleNamespace()}, schema),
            ({"model": _model("qwen3_vl")}, schema),
            ({"model": _model("gemma4")}, {**schema, "enable_thinking": False}),
            ({"model": _model("gemma4")}, {"enable_thinking": True, "repetition_penalty": 2.0}),
        ):
            vars(server).update(parts)
            arguments = generation.GenerationArguments(**how)
            ids = mx.array([[2, 3]])
            made = server._make_logits_processors(arguments, ids)
            seen.append([type(processor).__name__ for processor in made])
            logits = mx.ones((1, 4))
            for processor in made:
                logits = processor(ids[0], logits)
            seen.append(logits)
        return seen


def _model(model_type: str) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(model_type=model_type))


def _halved(ids, logits):
    return logits / 2


@pytest.fixture
def chat(mlx_vlm_chat, monkeypatch):
    skip_unless_needed(ID)
    if not mx.metal.is_available():  # the kernel that takes tokens out, before 0.7 and from then on
        monkeypatch.setattr("llguidance.mlx.apply_token_bitmask", _masked)
        monkeypatch.setattr("mlx_vlm.structured._apply_llguidance_mask", _masked, raising=False)
    with patched(ID):
        yield mlx_vlm_chat


def _masked(logits, mask):
    """Logits of the tokens whose bits are set in 32-bit words."""
    tokens = mx.arange(logits.shape[-1])
    bits = (mx.array(mask).reshape(-1)[tokens >> 5] >> (tokens & 31)) & 1
    return mx.where(bits == 1, logits, -mx.inf)


@pytest.mark.parametrize("thought", [None, "so {", "{} or [1]"])
def test_the_answer_is_what_the_schema_allows_and_the_thought_is_free(chat, thought):
    before = "" if thought is None else f"{THOUGHT}\n{thought}\n{END}"
    answer = chat.answer(f'{before}{{"a": 1}} and more', enable_thinking=True, **AS_JSON)
    assert answer.get("reasoning") == thought
    assert json.loads(answer["content"]) == {"a": 1}


def test_a_thought_that_the_prompt_opens_is_free(chat):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    answer = chat.answer(f'so{END}{{"a": 1}} and', history, enable_thinking=True, **AS_JSON)
    assert answer["reasoning"] == "so"
    assert json.loads(answer["content"]) == {"a": 1}


class _Counts:
    """A schema that says how often it was asked, and with what."""

    def __init__(self):
        self.seen = []

    def process_last_token(self, last_token, logits):
        self.seen.append(last_token)
        return logits - 1

    def clone(self):
        return _Counts()


def test_a_schema_that_saw_the_beginning_of_a_thought_begins_anew_behind_it():
    processor = AfterThought(_Counts(), in_thought=False)
    logits = mx.zeros((1, 128))
    first = processor(mx.array([5, 6]), logits)
    assert first[0, OPENING_ID].item() == 0 and first[0, 0].item() == -1
    for token in (OPENING_ID, 7, 101, 8):
        processor.process_last_token(token, logits)
    assert processor._own.seen == [101, 8]


def test_a_reset_or_cloned_processor_is_at_its_start():
    processor = AfterThought(_Counts(), in_thought=True)
    logits = mx.zeros((1, 128))
    for again in (processor, processor.clone(), processor):
        assert mx.array_equal(again(mx.array([7]), logits), logits)
        assert again(mx.array([7, 101]), logits)[0, 0].item() == -1
        again.reset()
