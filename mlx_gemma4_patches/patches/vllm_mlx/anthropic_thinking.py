"""Whether an Anthropic client asks Gemma 4 to think makes no difference.

What the user sees: ``thinking={"type": "disabled"}`` gets thoughts all the same and waits for them,
and ``{"type": "enabled"}`` gets none where the server's default is not to think.

Why: ``AnthropicRequest`` has no such field, so pydantic drops it (waybarrios/vllm-mlx#268). Up to
0.2.9 the endpoint has no way to tell the chat template either, and stays as it is.

The fix: the field travels with ``chat_template_kwargs`` and becomes ``enable_thinking`` where the
engine is known and its model is a Gemma 4, unless the request says that itself. The budget is left
out: the host's counts thoughts between ``<think>`` tags. It can be deleted when vllm-mlx reads
``thinking``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from ...gemma4 import channels
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_REQUEST = "vllm_mlx.api.anthropic_models:AnthropicRequest"
_PREPARE = "vllm_mlx.server:_prepare_anthropic_invocation"
_KEY = "anthropic_thinking"  # in chat_template_kwargs, until the engine is known
_WANTED = {"enabled": True, "adaptive": True, "disabled": False}


def probe() -> Finding:
    from vllm_mlx import server
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest

    if not hasattr(server, "_prepare_anthropic_invocation"):
        raise NotApplicable("the Anthropic endpoint of this vllm-mlx cannot tell a chat template")
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda token: channels.OPENING_ID)
    engine = SimpleNamespace(
        tokenizer=tokenizer, preserve_native_tool_format=False, model_name="", is_mllm=False
    )
    ignored = []
    for kind, wanted in _WANTED.items():
        request = AnthropicRequest(
            model="m",
            max_tokens=1,
            messages=[{"role": "user", "content": "Hi"}],
            thinking={"type": kind},
        )
        prepared = server._prepare_anthropic_invocation(engine, anthropic_to_openai(request), 1)
        options = prepared.chat_kwargs.get("chat_template_kwargs") or {}
        if options.get("enable_thinking") is not wanted:
            ignored.append(kind)
    if ignored:
        return Finding(True, f"enable_thinking does not follow thinking: {', '.join(ignored)}")
    return Finding(False, f"enable_thinking follows thinking: {', '.join(_WANTED)}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_REQUEST}.__init__", _with_thinking)
    surgery.wrap(_PREPARE, _with_the_engines_word)


def _with_thinking(original: Callable) -> Callable:
    def __init__(self, /, **data):
        thinking = data.get("thinking")
        if isinstance(thinking, dict) and thinking.get("type") in _WANTED:
            options = data.get("chat_template_kwargs") or {}
            data["chat_template_kwargs"] = {**options, _KEY: _WANTED[thinking["type"]]}
        original(self, **data)

    return __init__


def _with_the_engines_word(original: Callable) -> Callable:
    def _prepare_anthropic_invocation(engine, openai_request, *args, **kwargs):
        options = dict(openai_request.chat_template_kwargs or {})
        if _KEY not in options:
            return original(engine, openai_request, *args, **kwargs)
        thinks = options.pop(_KEY)
        is_heard = is_gemma4(engine)
        if is_heard:
            thinks = options.setdefault("enable_thinking", thinks)
        openai_request.chat_template_kwargs = options or None
        prepared = original(engine, openai_request, *args, **kwargs)
        if is_heard:  # the simple engine of 0.3.0 hears of it here alone
            prepared.chat_kwargs.setdefault("enable_thinking", thinks)
        return prepared

    return _prepare_anthropic_invocation


PATCH = Patch(
    id="vllm_mlx.anthropic_thinking",
    targets=(_REQUEST, _PREPARE),
    apply=apply,
    probe=probe,
)
