"""``--kv-cache-quantization`` does nothing.

What the user sees: with continuous batching and mlx-vlm 0.6.4 or newer the prefix cache takes as
much memory as without the flag.

Why: ``_quantize_cache`` looks for mlx-lm's ``KVCache``, and mlx-vlm has a class of its own since.

The fix: that class is quantized as well. As before, sliding windows are not: they are small. It can
be deleted when vllm-mlx knows both classes.
"""

from __future__ import annotations

import mlx.core as mx

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MODULE = "vllm_mlx.memory_cache"
_QUANTIZE = f"{_MODULE}:_quantize_cache"
_WRAPPER = f"{_MODULE}:_QuantizedCacheWrapper"


def probe() -> Finding:
    from mlx_vlm.models.cache import KVCache
    from vllm_mlx import memory_cache

    if not hasattr(memory_cache, "_QuantizedCacheWrapper"):
        raise NotApplicable("this vllm-mlx keeps no prefixes of multimodal models")
    cache = KVCache()
    cache.update_and_fetch(mx.zeros((1, 1, 8, 64)), mx.zeros((1, 1, 8, 64)))
    (stored,) = memory_cache._quantize_cache([cache], bits=8, group_size=64)
    is_plain = isinstance(stored.keys, mx.array)
    kind = f"stored as they were, in {stored.keys.dtype}" if is_plain else "stored in 8 bits"
    return Finding(is_plain, f"with --kv-cache-quantization keys are {kind}")


def apply(surgery: Surgery) -> None:
    wrapper = surgery.resolve(_WRAPPER)

    def make(original):
        def _quantize_cache(cache, bits=8, group_size=64):
            from mlx_vlm.models.cache import KVCache

            return [
                wrapper(layer, bits, group_size)
                if type(layer) is KVCache and layer.keys is not None
                else layer
                for layer in original(cache, bits, group_size)
            ]

        return _quantize_cache

    surgery.wrap(_QUANTIZE, make)


PATCH = Patch(
    id="vllm_mlx.kv_quantization_noop",
    targets=(_QUANTIZE, _WRAPPER),
    apply=apply,
    probe=probe,
)
