"""An error of the model is answered with an empty text.

What the user sees: with continuous batching a request that fails ends with status 200 and an empty
text; for Anthropic's clients, with ``end_turn``.

Why: both engines end a failed request with ``finish_reason="error"``, which is no word of either
protocol, and the server takes it for an answer.

The fix: an answer that ends so is raised, so that the server answers with status 500 or breaks the
stream. It can be deleted when no supported release is older than vllm-mlx 0.6.0, whose server looks
for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_ENGINE = "vllm_mlx.engine.batched:BatchedEngine"


def probe() -> Finding:
    from vllm_mlx import server
    from vllm_mlx.engine.batched import BatchedEngine
    from vllm_mlx.request import RequestOutput

    if hasattr(server, "GenerationError"):
        raise NotApplicable("this vllm-mlx's server tells clients of errors")

    async def generate(**how):
        return RequestOutput(request_id="", finished=True, finish_reason="error")

    engine = BatchedEngine("gemma-4", force_mllm=True)
    engine._loaded, engine._mllm_scheduler = True, SimpleNamespace(generate=generate)
    try:
        answer = asyncio.run(engine.generate("hi"))
    except RuntimeError as error:
        return Finding(False, f"a failed request raises: {error}")
    return Finding(True, f"a failed request is answered with {answer.text!r}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_ENGINE}.generate", _generate)
    surgery.wrap(f"{_ENGINE}.stream_generate", _stream_generate)


def _generate(original):
    async def generate(self, *args, **named):
        output = await original(self, *args, **named)
        _raise_error_of(output)
        return output

    return generate


def _stream_generate(original):
    async def stream_generate(self, *args, **named):
        # closed with ours, so that a client who leaves ends the request
        async with contextlib.aclosing(original(self, *args, **named)) as outputs:
            async for output in outputs:
                _raise_error_of(output)
                yield output

    return stream_generate


def _raise_error_of(output) -> None:
    if output.finish_reason == "error":
        raise RuntimeError("generation failed; the server's log has the error")


PATCH = Patch(
    id="vllm_mlx.hidden_errors",
    targets=(f"{_ENGINE}.generate", f"{_ENGINE}.stream_generate"),
    apply=apply,
    probe=probe,
)
