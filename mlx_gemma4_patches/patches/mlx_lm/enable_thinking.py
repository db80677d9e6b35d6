"""Opt-in: Gemma 4 thinks only when it is asked to.

What the user sees: every answer thinks first, and with a small ``max_tokens`` has no content.

Why: ``TokenizerWrapper.apply_chat_template`` tells the template ``enable_thinking=True`` whenever
the request says nothing. Google's templates, and transformers with them, default to false.

The fix: it tells Gemma 4's templates false instead. Upstream wants models to think by default
(``--chat-template-args '{"enable_thinking": false}'`` turns it off for a whole server), so this
is applied only with ``MLX_GEMMA4_PATCHES_ENABLE=mlx_lm.enable_thinking``. It can be deleted when
mlx-lm leaves the default to the template.
"""

from __future__ import annotations

from collections.abc import Callable

from ...hosts.mlx_lm import chat
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.tokenizer_utils:TokenizerWrapper.apply_chat_template"


def probe() -> Finding:
    chat.require_gemma4()
    told = chat.tokenizer().apply_chat_template([]).options.get("enable_thinking")
    measured = f"for a request that does not mention it, enable_thinking is {told}"
    return Finding(bool(told), measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _off_by_default)


def _off_by_default(original: Callable) -> Callable:
    def apply_chat_template(self, *args, **kwargs):
        if is_gemma4(self):
            kwargs.setdefault("enable_thinking", False)
        return original(self, *args, **kwargs)

    return apply_chat_template


PATCH = Patch(
    id="mlx_lm.enable_thinking",
    targets=(f"{_TARGET}(self, *, enable_thinking)",),
    apply=apply,
    probe=probe,
)
