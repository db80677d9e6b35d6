"""A batch cache that was stored and restored decodes wrongly or raises AttributeError.

What the user sees: whoever keeps batches by ``state`` and ``meta_state`` gets ``no attribute
'_lengths'`` (or ``'_right_padding'``) at the next token, or a window in the wrong order; the state
of a batch without tokens raises too. mlx-vlm's server keeps single rows, which are sound.

Why: see ``gemma4.cache_state``. mlx-vlm's own caches, since 0.6.4, are copies of mlx-lm's; 0.7.1
repaired the empty state of ``BatchKVCache`` alone.

It can be deleted when ``from_state`` of every supported release gives back what was stored.
"""

from __future__ import annotations

from ...gemma4 import cache_state
from ...hosts.mlx_vlm.own_caches import CACHES, own_caches
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    return cache_state.probe(own_caches())


def apply(surgery: Surgery) -> None:
    cache_state.apply(surgery, CACHES, nothing=None)  # as BatchKVCache has it since 0.7.1


PATCH = Patch(
    id="mlx_vlm.rotating_state",
    targets=cache_state.targets(CACHES),
    apply=apply,
    probe=probe,
)
