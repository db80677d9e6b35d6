"""Answers of the server that are only a tool call or only a thought have no ``content`` key.

What the user sees: a KeyError or a failed validation in the client; the schema requires the key,
and null where there is no content.

Why: ``APIHandler.generate_response`` writes the key only where there is text.

The fix: null is filled in. It can be deleted when no supported release is older than 0.32.0, which
does so for every model.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from ...hosts.mlx_lm import chat
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.server:APIHandler.generate_response"


def probe() -> Finding:
    chat.require_gemma4()
    message = respond(chat.tokenizer(), "", tool_calls=[{"id": "1"}])["choices"][0]["message"]
    return Finding(
        "content" not in message, f"the message of a tool call has the keys {', '.join(message)}"
    )


def respond(tokenizer, text, **parts):
    """A whole answer of the server of the model that ``tokenizer`` belongs to."""
    from mlx_lm.server import APIHandler

    handler = object.__new__(APIHandler)
    provider = SimpleNamespace(tokenizer=tokenizer)
    handler.response_generator = SimpleNamespace(model_provider=provider)
    handler.request_id = handler.requested_model = handler.system_fingerprint = ""
    handler.object_type, handler.created, handler.stream = "chat.completion", 0, False
    return handler.generate_response(text, "stop", 1, 1, **parts)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_content)


def _with_content(original: Callable) -> Callable:
    def generate_response(self, *args, **kwargs):
        response = original(self, *args, **kwargs)
        if is_gemma4(self.response_generator.model_provider.tokenizer):
            for choice in response["choices"]:
                if "message" in choice:
                    choice["message"].setdefault("content", None)
        return response

    return generate_response


PATCH = Patch(id="mlx_lm.content_null", targets=(_TARGET,), apply=apply, probe=probe)
