"""With Claude Code every request processes the whole prompt anew.

What the user sees: each turn of an agent takes as long as its whole conversation, though the server
keeps what it has processed.

Why: the client puts a line ``x-anthropic-billing-header: ...`` into the system prompt, with a hash
that changes with every request, so no two prompts begin alike.

The fix: that line is left out, for Gemma 4. It can be deleted when ``/v1/messages`` does so.

Upstream: none known.
"""

from __future__ import annotations

import importlib
from typing import Any

from ...gemma4 import billing
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_CONVERT = "mlx_vlm.server.anthropic:_anthropic_messages_to_internal"


def probe() -> Finding:
    importlib.import_module("mlx_vlm.server")  # tells its endpoints what they need
    try:
        from mlx_vlm.server import anthropic
        from mlx_vlm.server.schemas import AnthropicRequest
    except ImportError:
        raise NotApplicable("this mlx-vlm has no Anthropic endpoint") from None

    system = [
        {"type": "text", "text": f"{billing.NAME} cch=1a2b3;"},
        {"type": "text", "text": "Be nice."},
    ]
    request = AnthropicRequest(
        model="m", max_tokens=1, system=system, messages=[{"role": "user", "content": "Hi"}]
    )
    prompt = anthropic._anthropic_messages_to_internal(request)[0][0]["content"]
    return Finding(billing.NAME in prompt, f"the system prompt begins with {prompt[:40]!r}")


def apply(surgery: Surgery) -> None:
    def make(original):
        def _anthropic_messages_to_internal(request):
            if _serves_gemma4():
                system = billing.without_line(request.system)
                request = request.model_copy(update={"system": system})
            return original(request)

        return _anthropic_messages_to_internal

    surgery.wrap(_CONVERT, make)


def _serves_gemma4() -> bool:
    """Whether the server's model is a Gemma 4, or there is none yet."""
    from mlx_vlm.server.runtime import runtime

    config: Any = runtime.model_cache.get("config")
    if config is None:
        return True
    kind = config.get("model_type") if isinstance(config, dict) else config.model_type
    return str(kind).startswith("gemma4")


PATCH = Patch(
    id="mlx_vlm.anthropic_billing", targets=(f"{_CONVERT}(request)",), apply=apply, probe=probe
)
