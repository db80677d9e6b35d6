"""--kv-quant-scheme turboquant ends in "too many values to unpack" beside mlx-lm 0.32.

What the user sees: that error instead of an answer. It is what ``pip install mlx-vlm==0.6.3`` gives
today.

Why: the compressed cache is made from the ``state`` of one of mlx-lm's, which up to 0.31.3 was the
keys and values so far. Since 0.32.0 it is the whole buffers, unused places included, and the
offset.

The fix: it is made from the part of them that is used. It can be deleted when no supported release
is older than mlx-vlm 0.6.4, which has caches of its own.
"""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx

from ...patch import Finding, Patch
from ...surgery import Surgery

_FROM_CACHE = "mlx_vlm.turboquant:TurboQuantKVCache.from_cache"


def probe() -> Finding:
    from mlx_vlm.models.cache import KVCache
    from mlx_vlm.turboquant import TurboQuantKVCache

    cache = KVCache()
    cache.update_and_fetch(mx.ones((1, 1, 3, 32)), mx.ones((1, 1, 3, 32)))
    try:
        offset = TurboQuantKVCache.from_cache(cache, bits=4).offset
    except ValueError as error:
        return Finding(True, f"compressing a cache fails: {error}")
    return Finding(offset != 3, f"{offset} of 3 cached tokens are compressed")


def apply(surgery: Surgery) -> None:
    def make(original):
        def from_cache(cls, cache, *args, **named):
            state = cache.state
            if len(state) == 3:
                keys, values, offset = state
                if keys is not None:
                    keys, values = keys[..., :offset, :], values[..., :offset, :]
                cache = SimpleNamespace(state=(keys, values))
            return original(cls, cache, *args, **named)

        return from_cache

    surgery.wrap(_FROM_CACHE, make)


PATCH = Patch(id="mlx_vlm.turboquant_state", targets=(_FROM_CACHE,), apply=apply, probe=probe)
