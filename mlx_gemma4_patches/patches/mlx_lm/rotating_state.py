"""A batch's prompt cache that was saved and loaded decodes wrongly or raises AttributeError.

What the user sees: after ``load_prompt_cache`` of a batch, the next token raises ``no attribute
'_lengths'`` (or ``'_right_padding'``), or is computed against a window in the wrong order. Up to
0.31.3 a batch without tokens cannot be saved at all.

Why: see ``gemma4.cache_state``. mlx-lm 0.32.0 keeps ``rotated`` (ml-explore/mlx-lm#1250) and the
empty state; what ``__init__`` alone sets is missing still.

It can be deleted when ``from_state`` of every supported release sets these attributes.
"""

from __future__ import annotations

from ...gemma4 import cache_state
from ...patch import Finding, Patch
from ...surgery import Surgery

_CACHES = "mlx_lm.models.cache"


def probe() -> Finding:
    from mlx_lm.models import cache

    return cache_state.probe(cache)


def apply(surgery: Surgery) -> None:
    # tree_flatten drops an empty tuple, so that the file has nothing of it
    cache_state.apply(surgery, _CACHES, nothing=())


PATCH = Patch(
    id="mlx_lm.rotating_state",
    targets=cache_state.targets(_CACHES),
    apply=apply,
    probe=probe,
)
