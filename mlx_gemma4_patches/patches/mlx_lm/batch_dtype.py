"""The KV cache doubles in size, and answers change, when a request joins a running batch.

What the user sees: memory for the KV cache goes up to twice the expected, and the same prompt at
temperature 0 is answered differently depending on when another request came in.

Why: see ``gemma4.cache_dtype``. Repaired in mlx-lm 0.32.0 (ml-explore/mlx-lm#1491); 0.31.2 also
loses rows where the empty batch is not as large as the other, and 0.31.1 raises.

It can be deleted when no supported release is older than mlx-lm 0.32.0.
"""

from __future__ import annotations

from ...gemma4 import cache_dtype
from ...patch import Finding, Patch
from ...surgery import Surgery

_CACHES = "mlx_lm.models.cache"


def probe() -> Finding:
    from mlx_lm.models import cache

    return cache_dtype.probe(cache)


def apply(surgery: Surgery) -> None:
    cache_dtype.apply(surgery, _CACHES)


PATCH = Patch(
    id="mlx_lm.batch_dtype",
    targets=cache_dtype.targets(_CACHES),
    apply=apply,
    probe=probe,
)
