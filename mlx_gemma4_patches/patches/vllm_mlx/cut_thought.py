"""A thought that ``max_tokens`` cuts is the answer too, where the request has tools.

What the user sees: the whole thought in ``content``, and once more as reasoning.

Why: where nothing but reasoning was found, the server looks for calls in the text without its
thoughts, and takes out those of another family of models.

The fix: those of Gemma 4 are taken out, too. It can be deleted when vllm-mlx asks its reasoning
parser what is left of such a text.
"""

from __future__ import annotations

from types import SimpleNamespace

from ...gemma4.channels import THOUGHT, Turn
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_SPLIT = "vllm_mlx.server:_extract_reasoning_and_tool_calls"
_WITHOUT_THOUGHTS = "vllm_mlx.server:_strip_harmony_analysis_blocks"  # from 0.4.1 on


def probe() -> Finding:
    try:
        from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser
    except ImportError:
        raise NotApplicable("this vllm-mlx has no parser for Gemma 4") from None
    from vllm_mlx import server

    if not hasattr(server, _SPLIT.partition(":")[2]):
        raise NotApplicable("this vllm-mlx looks for calls before thoughts")
    before = server._reasoning_parser
    server._reasoning_parser = Gemma4ReasoningParser()
    try:
        request = SimpleNamespace(tools=[{}], model_dump=dict)
        _, content, _ = server._extract_reasoning_and_tool_calls(f"{THOUGHT}\nhm", request)
    finally:
        server._reasoning_parser = before
    return Finding(bool(content), f"of a thought that is cut the answer is {content or ''!r}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_WITHOUT_THOUGHTS, _with_gemma4)


def _with_gemma4(original):
    def _strip_harmony_analysis_blocks(text):
        if THOUGHT not in text:
            return original(text)
        turn = Turn()
        return turn.feed(text)[1] + turn.finish()[1]

    return _strip_harmony_analysis_blocks


PATCH = Patch(
    id="vllm_mlx.cut_thought",
    targets=(_SPLIT, _WITHOUT_THOUGHTS),
    apply=apply,
    probe=probe,
)
