"""``--max-kv-size`` and ``max_kv_size=`` do nothing: the cache grows with the conversation.

What the user sees: memory that grows past the limit they set, in ``generate``, ``stream_generate``,
chat, cached prompts, and from 0.32.0 on in ``BatchGenerator``. mlx-lm documents the limit: "Old
entries (except the first 4 tokens) will be overwritten".

Why: ``make_prompt_cache`` ignores the limit where a model makes its caches itself, as Gemma 4 does
for its sliding layers.

The fix: a full-attention layer gets the cache that models without such layers get, and a sliding
layer's is never larger than the limit. What goes over the limit is forgotten, as everywhere in
mlx-lm; a batch does not keep the first tokens. It can be deleted when mlx-lm passes the limit on.

Upstream: ml-explore/mlx-lm#118, #126 (open), #1343 (closed; it weighs the memory against recall).
"""

from __future__ import annotations

from ...gemma4 import tiny
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MAKE = "mlx_lm.models.cache:make_prompt_cache"
_KEPT = 4  # first tokens, as in the original


def probe() -> Finding:
    try:
        from mlx_lm.models import cache, gemma4
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    model = gemma4.Model(gemma4.ModelArgs.from_dict(tiny.config("dense")))
    sizes = [getattr(c, "max_size", None) for c in cache.make_prompt_cache(model, max_kv_size=8)]
    above = [size for size in sizes if size is None or size > 8]
    return Finding(
        bool(above), f"{len(above)} of {len(sizes)} layers keep more tokens than max_kv_size"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_MAKE, _limited)


def _limited(original):
    def make_prompt_cache(model, max_kv_size=None):
        made = original(model, max_kv_size)
        if max_kv_size is None or not is_gemma4(model):
            return made
        return [_at_most(max_kv_size, cache) for cache in made]

    return make_prompt_cache


def _at_most(size, cache):
    from mlx_lm.models.cache import KVCache, RotatingKVCache

    if type(cache) is KVCache:
        return RotatingKVCache(size, keep=min(_KEPT, size - 1))
    if type(cache) is RotatingKVCache and cache.max_size > size:
        return RotatingKVCache(size)
    return cache


PATCH = Patch(
    id="mlx_lm.max_kv_size",
    targets=(_MAKE,),
    apply=apply,
    probe=probe,
)
