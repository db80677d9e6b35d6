"""Errors of the model under vllm-mlx's continuous batching."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tests.hosts import batching, failing
from tests.hosts.contract import PatchContract
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")

_GOOD, _READING, _DECODING = "A long story", f"oh no{failing.READING}", f"oh no{failing.DECODING}"


def _ended_with_an_error(answer) -> bool:
    """As the engine says it; the server of 0.6.0 raises what its engine only names."""
    return isinstance(answer, RuntimeError) or getattr(answer, "finish_reason", None) == "error"


class TestDecodeErrors(PatchContract):
    id = "vllm_mlx.decode_errors"

    def untouched(self):
        """A step without work."""
        from vllm_mlx.mllm_scheduler import MLLMScheduler

        processor = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=1, name_or_path=""))
        return vars(MLLMScheduler(model=SimpleNamespace(), processor=processor).step())


class TestHiddenErrors(PatchContract):
    id = "vllm_mlx.hidden_errors"

    def untouched(self):
        """Answers that end as they should."""
        from vllm_mlx.engine.batched import BatchedEngine
        from vllm_mlx.request import RequestOutput

        output = RequestOutput(
            request_id="", output_text="hi", new_text="hi", finished=True, finish_reason="stop"
        )

        async def generate(**how):
            return output

        async def add_request_async(**how):
            return ""

        async def stream_outputs(request_id):
            yield output

        engine = BatchedEngine("gemma-4", force_mllm=True)
        engine._loaded, engine._mllm_scheduler = (
            True,
            SimpleNamespace(
                generate=generate,
                add_request_async=add_request_async,
                stream_outputs=stream_outputs,
            ),
        )

        async def streamed():
            return [vars(output) async for output in engine.stream_generate("hi")]

        return vars(asyncio.run(engine.generate("hi"))), asyncio.run(streamed())


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch):
    # the failing model tells a prompt from a step by its length, and a kept prefix leaves one token
    monkeypatch.setenv("MLX_GEMMA4_PATCHES_PREFIX_BYTES", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("errors") / "gemma-4-tiny"
    return batching.save("dense", made, batching.PLAIN_TEMPLATE)


def test_a_prompt_that_cannot_be_read_ends_alone(folder) -> None:
    with failing.model(), batching.engine(folder) as engine:
        good, bad = [batching.message(_GOOD)], [batching.message(_READING)]
        alone = engine.answer(*good).text
        first, second, third = engine.answers(good, bad, good, errors=True)
        assert _ended_with_an_error(second)
        if not _ended_with_an_error(first):  # read in one batch with the bad one, or before it
            assert first.text == third.text == alone
        assert engine.answer(*good).text == alone


def test_a_batch_that_fails_ends_and_the_next_request_is_served(folder) -> None:
    with failing.model(), batching.engine(folder) as engine:
        good, bad = [batching.message(_GOOD)], [batching.message(_DECODING)]
        alone = engine.answer(*good).text
        assert _ended_with_an_error(engine.answers(bad, errors=True)[0])
        assert engine.answer(*good).text == alone
        assert _ended_with_an_error(engine.answers(bad, bad, errors=True)[1])
        assert engine.answer(*good).text == alone


def test_clients_of_the_server_are_told(folder) -> None:
    arguments = ("--continuous-batching", "--mllm")
    with serve("vllm_mlx", folder, *arguments, program="tests.hosts.failing") as post:

        def ask(path: str, text: str) -> dict:
            messages = [{"role": "user", "content": text}]
            how = {"model": str(folder), "max_tokens": 8, "temperature": 0}
            return post(path, {"messages": messages, **how})

        for path in ("/v1/chat/completions", "/v1/messages"):
            before = ask(path, _GOOD)
            for bad in (_READING, _DECODING):
                with pytest.raises(AssertionError, match=r"^500 "):
                    ask(path, bad)
            after = ask(path, _GOOD)
            assert _said(after) == _said(before)


def _said(answer: dict):
    return answer.get("content") or answer["choices"][0]["message"]["content"]
