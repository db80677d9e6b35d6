"""An answer about an image that max_tokens has cut short says that it is complete.

What the user sees, without continuous batching: ``finish_reason`` is "stop", for Anthropic's
clients ``end_turn``, where it should be "length".

Why: ``MLXMultimodalLM`` writes "stop" under everything that it has generated.

The fix: where as many tokens were made as may be, it is "length". (An end of the turn that is the
very last token allowed counts as cut as well: what mlx-vlm says of it is not passed on.) It can be
deleted when vllm-mlx passes mlx-vlm's reason on.
"""

from __future__ import annotations

import contextlib
import inspect
from types import SimpleNamespace

from ...hosts.vllm_mlx import unbatched
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODEL = "vllm_mlx.models.mllm:MLXMultimodalLM"
_WHOLE = (f"{_MODEL}.generate", f"{_MODEL}.chat")
_STREAM = f"{_MODEL}.stream_chat"


def probe() -> Finding:
    def generate(*args, max_tokens, **how):
        return SimpleNamespace(text="so", prompt_tokens=1, generation_tokens=max_tokens)

    reason = unbatched.answer(generate, max_tokens=2).finish_reason
    return Finding(reason != "length", f"2 tokens where max_tokens is 2: finish_reason {reason!r}")


def apply(surgery: Surgery) -> None:
    for target in _WHOLE:
        surgery.wrap(target, _whole)
    surgery.wrap(_STREAM, _stream)


def _whole(original):
    signature = inspect.signature(original)

    def whole(self, *args, **named):
        output = original(self, *args, **named)
        if is_gemma4(self):
            _correct(output, signature.bind(self, *args, **named))
        return output

    return whole


def _stream(original):
    signature = inspect.signature(original)

    def stream(self, *args, **named):
        with contextlib.closing(original(self, *args, **named)) as outputs:
            for output in outputs:
                if output.finish_reason and is_gemma4(self):
                    _correct(output, signature.bind(self, *args, **named))
                yield output

    return stream


def _correct(output, call: inspect.BoundArguments) -> None:
    call.apply_defaults()
    if output.finish_reason == "stop" and output.completion_tokens >= call.arguments["max_tokens"]:
        output.finish_reason = "length"


PATCH = Patch(
    id="vllm_mlx.finish_reason",
    targets=tuple(f"{target}(self, *, max_tokens)" for target in (*_WHOLE, _STREAM)),
    apply=apply,
    probe=probe,
)
