"""mlx-vlm 0.4.3 rotates queries and keys wrongly, with every Gemma 4.

What the user sees: text that falls apart, also without images.

Why: a full-attention layer rotates a quarter of its head, pairs (i, i + head_dim / 2), with the
frequencies of the whole head (rope type "proportional"). 0.4.3 rotates the first quarter as if it
were a head of its own.

The fix: an attention layer of that type gets the right rotation when it is built. It can be deleted
when 0.4.3 is no longer supported: 0.4.4 has it.

Upstream: transformers 5.23, ``_compute_proportional_rope_parameters``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny as gemma4_tiny
from ...hosts.mlx_vlm import tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.models.gemma4.language:Attention.__init__"


def probe() -> Finding:
    attention = tiny.model("dense").language_model.model.layers[2].self_attn
    half = attention.head_dim // 2
    settings = gemma4_tiny.config("dense")["text_config"]["rope_parameters"]["full_attention"]
    frequency = settings["rope_theta"] ** (-1 / half)  # of the second pair
    one = mx.zeros((1, 1, 1, attention.head_dim))
    one[..., 1] = 1
    rotated = attention.rope(one, offset=100)
    wanted = mx.zeros(one.shape)
    wanted[..., 1], wanted[..., 1 + half] = mx.cos(100 * frequency), mx.sin(100 * frequency)
    error = mx.abs(rotated - wanted).max().item()
    measured = f"at position 100 the second pair of a query is rotated to a place {error:.1e} off"
    return Finding(error > 1e-3, measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_proportional_rope)


def _with_proportional_rope(original):
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        settings = self.config.rope_parameters.get(self.layer_type, {})
        if settings.get("rope_type") == "proportional":
            self.rope = proportional_rope(self.head_dim, settings)

    return __init__


def proportional_rope(head_dim: int, settings: Mapping[str, Any]) -> Callable[..., mx.array]:
    """``rope(x, offset=)`` of x (B, heads, L, head_dim), as ``rope_parameters`` say."""
    angles = int(settings.get("partial_rotary_factor", 1.0) * head_dim // 2)
    base, factor = settings.get("rope_theta", 10000.0), settings.get("factor", 1.0)
    periods = [factor * base ** (2 * i / head_dim) for i in range(angles)]
    still = [float("inf")] * (head_dim // 2 - angles)
    freqs = mx.array(periods + still)
    return functools.partial(
        mx.fast.rope, dims=head_dim, traditional=False, base=None, scale=1.0, freqs=freqs
    )


PATCH = Patch(
    id="mlx_vlm.rope_proportional",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
