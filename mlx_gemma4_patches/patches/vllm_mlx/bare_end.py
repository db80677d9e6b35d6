"""An answer without thinking that begins with ``<channel|>`` shows it.

What the user sees: ``<channel|>Hi`` where the request turns thinking off. Gemma 4 now and then ends
the empty thought that its template has written and ended for it.

Why: with thinking off, the server looks for thoughts only where one is opened in the answer, for an
end alone could be text.

The fix: an end that the answer begins with is no text. It can be deleted when vllm-mlx takes it for
what it is.
"""

from __future__ import annotations

from ...gemma4.channels import END
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "vllm_mlx.server:_explicit_reasoning_markers_present"


def probe() -> Finding:
    try:
        from vllm_mlx.server import _explicit_reasoning_markers_present  # noqa: F401
    except ImportError:
        raise NotApplicable("this vllm-mlx looks for no thoughts with thinking off") from None
    from vllm_mlx import server
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser

    before = server._reasoning_parser
    server._reasoning_parser = Gemma4ReasoningParser()
    try:
        _, content, _ = server._extract_reasoning_and_tool_calls(f"{END}Hi", allow_reasoning=False)
    finally:
        server._reasoning_parser = before
    return Finding(content != "Hi", f"{END}Hi is answered as {content}")


def apply(surgery: Surgery) -> None:
    def make(original):
        def _explicit_reasoning_markers_present(text, parser=None):
            if original(text, parser):
                return True
            active = surgery.resolve("vllm_mlx.server:_reasoning_parser")
            is_gemma4 = getattr(parser or active, "end_token", None) == END
            return is_gemma4 and text.lstrip().startswith(END)

        return _explicit_reasoning_markers_present

    surgery.wrap(_TARGET, make)


PATCH = Patch(id="vllm_mlx.bare_end", targets=(_TARGET,), apply=apply, probe=probe)
