"""The KV cache doubles in size when a request joins a batch, on mlx-vlm's own caches.

What the user sees: memory for the KV cache goes up to twice the expected, and the same prompt at
temperature 0 is answered differently depending on when another request came in.

Why: see ``gemma4.cache_dtype``. mlx-vlm's copies of the batch caches, since 0.6.4, are from before
ml-explore/mlx-lm#1491.

It can be deleted when ``extend`` of every supported release makes up keys of the right dtype.
"""

from __future__ import annotations

from ...gemma4 import cache_dtype
from ...hosts.mlx_vlm.own_caches import CACHES, own_caches
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    return cache_dtype.probe(own_caches())


def apply(surgery: Surgery) -> None:
    cache_dtype.apply(surgery, CACHES)


PATCH = Patch(
    id="mlx_vlm.batch_dtype",
    targets=cache_dtype.targets(CACHES),
    apply=apply,
    probe=probe,
)
