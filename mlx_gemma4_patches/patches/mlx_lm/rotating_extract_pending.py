"""A conversation taken out of a batch in mid-prefill comes with padding for content.

What the user sees: a conversation extracted while it is prefilled beside longer ones continues
with nonsense; cancelling one of several requests in mid-prefill breaks or duplicates the others.
mlx-lm's own ``BatchGenerator`` finalizes first; programs that drive the caches themselves do not
always. On 0.31.1 a row that is extracted after the window has rotated loses its oldest tokens.

Why: see ``gemma4.cache_rows`` (ml-explore/mlx-lm#1746, closed without a fix).

It can be deleted when ``extract`` and ``filter`` of every supported release heed pending padding.
"""

from __future__ import annotations

from ...gemma4 import cache_rows
from ...patch import Finding, Patch
from ...surgery import Surgery

_CACHES = "mlx_lm.models.cache"


def probe() -> Finding:
    from mlx_lm.models import cache

    return cache_rows.probe(cache)


def apply(surgery: Surgery) -> None:
    cache_rows.apply(surgery, _CACHES)


PATCH = Patch(
    id="mlx_lm.rotating_extract_pending",
    targets=cache_rows.targets(_CACHES),
    apply=apply,
    probe=probe,
)
