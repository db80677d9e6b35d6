"""--kv-bits ends in "Cannot reshape array" as soon as two requests are answered together.

What the user sees: with ``mlx_vlm.server --kv-bits 8`` one request at a time works; of several at a
time each ends in that error. A batch of as many rows as a full-attention layer has KV heads would
not fail, but rows would be shown each other's padding.

Why: attention to quantized keys gives query heads that share a KV head a dimension of their own,
and takes the mask of a batch, (B, 1, L, K), for one without it.

The fix: in front of such attention the mask of a batch gets that dimension, (B, 1, 1, L, K). It can
be deleted when no supported release is older than mlx-vlm 0.6.5 and, for those before 0.6.4, whose
attention is mlx-lm's, mlx-lm 0.32.0.
"""

from __future__ import annotations

import mlx.core as mx

from ...hosts.mlx_vlm import tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_ATTENTION = "mlx_vlm.models.gemma4.language:Attention.__call__"
_QUANTIZED = "mlx_vlm.models.base:quantized_scaled_dot_product_attention"  # since 0.6.4
_PADDING = 2


def probe() -> Finding:
    from mlx_vlm.models import cache as caches

    if not hasattr(caches, "BatchQuantizedKVCache"):
        raise NotApplicable("this mlx-vlm quantizes no batch")
    layers = tiny.model("dense").language_model.model.layers
    attention = next(x.self_attn for x in layers if x.layer_type == "full_attention")
    length = 6
    hidden = mx.random.normal((2, length, attention.q_proj.weight.shape[-1]), key=mx.random.key(0))

    def attend(x: mx.array, padding: list[int]) -> mx.array:
        cache = caches.BatchQuantizedKVCache(padding, group_size=32, bits=8)
        mask = cache.make_mask(x.shape[1], return_array=True, window_size=None)
        return attention(x, mask, cache)[0]

    try:
        alone = attend(hidden[1:, _PADDING:], [0])
        together = attend(hidden, [0, _PADDING])[1:, _PADDING:]
    except (ValueError, TypeError) as error:
        return Finding(True, f"a batch of two rows fails: {str(error).partition(chr(10))[0]}")
    error = mx.abs(together - alone).max().item()
    return Finding(error > 1e-3, f"in a batch of two rows attention is off by {error:.1e}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_ATTENTION, _attention)


def _attention(original):
    def __call__(self, x, mask=None, cache=None, *args, **kwargs):
        if _is_of_a_batch(mask) and self.n_heads > self.n_kv_heads:
            from mlx_vlm.models.cache import BatchQuantizedKVCache

            keys, _ = (args[0] if args else kwargs.get("shared_kv")) or (None, None)
            # turboquant has an attention of its own, and its keys are named
            if isinstance(cache, BatchQuantizedKVCache) or type(keys) in (tuple, list):
                mask = mask[:, :, None]
        return original(self, x, mask, cache, *args, **kwargs)

    return __call__


def _is_of_a_batch(mask) -> bool:
    return isinstance(mask, mx.array) and mask.ndim == 4 and mask.shape[0] > 1


PATCH = Patch(
    id="mlx_vlm.kv_bits_batch", targets=(_ATTENTION, _QUANTIZED), apply=apply, probe=probe
)
