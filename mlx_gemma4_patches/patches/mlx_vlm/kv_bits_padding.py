"""With --kv-bits and requests that are answered together, all but the longest get nonsense.

What the user sees: with ``mlx_vlm.server --kv-bits 8`` answers are right one at a time; of several
prompts of different lengths at a time, only the longest is answered.

Why: the quantized caches of a batch make masks that know how many tokens there are and not which of
them are padding.

The fix: the mask is made with the padding. It can be deleted when no supported release is older
than mlx-vlm 0.6.0, which does that.
"""

from __future__ import annotations

import mlx.core as mx

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_CACHES = (
    "mlx_vlm.models.cache:BatchQuantizedKVCache",
    "mlx_vlm.turboquant:BatchTurboQuantKVCache",
)


def probe() -> Finding:
    from mlx_vlm.models import cache as caches

    if not hasattr(caches, "BatchQuantizedKVCache"):
        raise NotApplicable("this mlx-vlm quantizes no batch")
    cache = caches.BatchQuantizedKVCache([0, 2], group_size=32, bits=8)
    cache.update_and_fetch(mx.ones((2, 1, 6, 32)), mx.ones((2, 1, 6, 32)))
    mask = cache.make_mask(1, return_array=True, window_size=None)
    seen = 7 if mask is None else mask[1].sum().item()
    measured = f"a token behind 2 positions of padding and 4 tokens attends to {seen}, 5 are right"
    return Finding(seen != 5, measured)


def apply(surgery: Surgery) -> None:
    def make(original):
        def make_mask(self, *args, **kwargs):
            from mlx_lm.models.base import create_causal_mask

            return create_causal_mask(
                args[0] if args else kwargs["N"],
                self._idx,
                window_size=kwargs.get("window_size"),
                left_padding=self.left_padding,
            )

        return make_mask

    for cache in _CACHES:
        surgery.wrap(f"{cache}.make_mask", make)


PATCH = Patch(
    id="mlx_vlm.kv_bits_padding",
    targets=tuple(f"{cache}.make_mask" for cache in _CACHES),
    apply=apply,
    probe=probe,
)
