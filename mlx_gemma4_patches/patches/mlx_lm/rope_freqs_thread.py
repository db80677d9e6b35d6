"""Gemma 4 loaded in one thread fails in another: "There is no Stream(gpu, 1) in current thread".

What the user sees: that RuntimeError at the first token, in servers and applications that load the
model in one thread and generate in another.

Why: streams belong to threads, and a lazy array can only be evaluated where its stream is. Loading
evaluates a model's parameters; the frequencies of ``ProportionalRoPE``, which the full-attention
layers use, are none, so they stay lazy until the first forward pass.

The fix: they are evaluated where they are made. It can be deleted when mlx-lm does so.

Upstream: waybarrios/vllm-mlx#613 (the cause, with mlx 0.31.2 on Metal), ml-explore/mlx-lm#1256,
Blaizzy/mlx-vlm#1854 (the same in mlx-vlm). On the CPU it shows from mlx 0.32 on.
"""

from __future__ import annotations

from ...gemma4 import lazy_arrays
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.models.rope_utils:ProportionalRoPE.__init__"


def probe() -> Finding:
    try:
        from mlx_lm.models.rope_utils import ProportionalRoPE
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    return lazy_arrays.finding(ProportionalRoPE(64, 16)._freqs)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, lazy_arrays.with_freqs)


PATCH = Patch(
    id="mlx_lm.rope_freqs_thread",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
