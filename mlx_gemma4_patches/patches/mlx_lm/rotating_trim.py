"""Speculative decoding past the sliding window goes on with rejected tokens in the cache.

What the user sees: with a draft model, text that differs from plain greedy decoding as soon as the
conversation is longer than the window. mlx-vlm 0.5.0 to 0.6.3 rewinds Gemma 4 through mlx-lm's
caches this way; mlx-lm itself asks ``is_trimmable`` first and does not rewind at all, see
``mlx_lm.speculative_rewind``.

Why: see ``gemma4.cache_tail`` (ml-explore/mlx-lm#1486, closed without a fix).

It can be deleted when ``trim`` of every supported release drops what it trims.
"""

from __future__ import annotations

from ...gemma4 import cache_tail
from ...patch import Finding, Patch
from ...surgery import Surgery

_CACHES = "mlx_lm.models.cache"


def probe() -> Finding:
    from mlx_lm.models import cache

    return cache_tail.probe(cache)


def apply(surgery: Surgery) -> None:
    cache_tail.apply(surgery, _CACHES)


PATCH = Patch(
    id="mlx_lm.rotating_trim",
    targets=cache_tail.targets(_CACHES),
    apply=apply,
    probe=probe,
)
