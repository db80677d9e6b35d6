"""Batched speculative decoding forgets part of short prompts; a one-token prefill step raises.

What the user sees: "finalize() should be called before deocoding" when prompts with a cached
prefix end in a step of one token (0.6.4); wrong text for short prompts in a batch that verifies
several tokens at once after it has been decoded past the window. The server with a drafter is such
a case: of two requests at once one is answered otherwise than alone (0.7.10, from word 13 on).

Why: see ``gemma4.cache_steps``. The update of one token is repaired since mlx-vlm 0.6.5, its mask
since 0.7.1; the mask of several tokens is not.

It can be deleted when ``BatchRotatingKVCache`` of every supported release makes the mask that its
update will need.
"""

from __future__ import annotations

from ...gemma4 import cache_steps
from ...hosts.mlx_vlm.own_caches import CACHES, own_caches
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    return cache_steps.probe(own_caches())


def apply(surgery: Surgery) -> None:
    cache_steps.apply(surgery, CACHES)


PATCH = Patch(
    id="mlx_vlm.rotating_steps",
    targets=cache_steps.targets(CACHES),
    apply=apply,
    probe=probe,
)
