"""A request cancelled in mid-prefill breaks the others; a row taken out comes with padding.

What the user sees: one of several requests is cancelled while they are being prefilled, and the
others fail or continue with nonsense.

Why: see ``gemma4.cache_rows``. mlx-vlm repaired ``filter`` in 0.6.14 (Blaizzy/mlx-vlm#1890, padding
on the right) and 0.7.8 (padding on the left); ``extract`` is as it was.

It can be deleted when ``extract`` of every supported release heeds pending padding.
"""

from __future__ import annotations

from ...gemma4 import cache_rows
from ...hosts.mlx_vlm.own_caches import CACHES, own_caches
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    return cache_rows.probe(own_caches())


def apply(surgery: Surgery) -> None:
    cache_rows.apply(surgery, CACHES)


PATCH = Patch(
    id="mlx_vlm.rotating_extract_pending",
    targets=cache_rows.targets(CACHES),
    apply=apply,
    probe=probe,
)
