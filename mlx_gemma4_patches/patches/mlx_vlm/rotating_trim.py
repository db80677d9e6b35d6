"""Speculative decoding past the sliding window goes on with rejected tokens in the cache.

What the user sees: with a draft model, nonsense as soon as the conversation is longer than the
window (logits off by 14 on the tiny models).

Why: see ``gemma4.cache_tail``. ``rollback_speculative_cache`` of Gemma 4 trims without asking
``is_trimmable``; only some drafters put a cache with slack in place of the sliding-window one.

It can be deleted when ``trim`` of every supported release drops what it trims.
"""

from __future__ import annotations

from ...gemma4 import cache_tail
from ...hosts.mlx_vlm.own_caches import CACHES, own_caches
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    return cache_tail.probe(own_caches())


def apply(surgery: Surgery) -> None:
    cache_tail.apply(surgery, CACHES)


PATCH = Patch(
    id="mlx_vlm.rotating_trim",
    targets=cache_tail.targets(CACHES),
    apply=apply,
    probe=probe,
)
