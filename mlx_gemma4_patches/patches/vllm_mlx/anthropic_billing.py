"""With Claude Code every request of vllm-mlx 0.2.7 processes the whole prompt anew.

What the user sees: 50 seconds and more for each turn of an agent, where the prompt cache should
leave a few (waybarrios/vllm-mlx#256).

Why: the client puts a line ``x-anthropic-billing-header: ...`` into the system prompt, with a hash
that changes with every request, so no two prompts begin alike.

The fix: that line is left out, as vllm-mlx has it from 0.2.8 on, for Gemma 4. It can be deleted
when no supported release is older than that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from ...gemma4 import billing
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_CONVERT = "vllm_mlx.api.anthropic_adapter:anthropic_to_openai"


def probe() -> Finding:
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest

    system = [
        {"type": "text", "text": f"{billing.NAME} cch=1a2b3;"},
        {"type": "text", "text": "Be nice."},
    ]
    request = AnthropicRequest(
        model="m", max_tokens=1, system=system, messages=[{"role": "user", "content": "Hi"}]
    )
    prompt = anthropic_to_openai(request).messages[0].content
    return Finding(billing.NAME in prompt, f"the system prompt begins with {prompt[:40]!r}")


def apply(surgery: Surgery) -> None:
    def make(original: Callable) -> Callable:
        def anthropic_to_openai(request):
            engine = getattr(sys.modules.get("vllm_mlx.server"), "_engine", None)
            if engine is None or is_gemma4(engine):
                request = request.model_copy(
                    update={"system": billing.without_line(request.system)}
                )
            return original(request)

        return anthropic_to_openai

    surgery.wrap(_CONVERT, make)


PATCH = Patch(id="vllm_mlx.anthropic_billing", targets=(_CONVERT,), apply=apply, probe=probe)
