"""A batch that takes one token at a time and then several forgets part of its short prompts.

What the user sees: requests whose prompts go through ``BatchGenerator.insert_segments`` in pieces
of one token and of several are answered with nonsense where the prompt is short and the batch is
past the window; on 0.31.1 cached conversations that go on with one token beside longer ones raise
"finalize() should be called before deocoding".

Why: see ``gemma4.cache_steps``.

It can be deleted when ``BatchRotatingKVCache`` of every supported release makes the mask that its
update will need, as mlx-vlm's does for one token since 0.7.1.
"""

from __future__ import annotations

from ...gemma4 import cache_steps
from ...patch import Finding, Patch
from ...surgery import Surgery

_CACHES = "mlx_lm.models.cache"


def probe() -> Finding:
    from mlx_lm.models import cache

    return cache_steps.probe(cache)


def apply(surgery: Surgery) -> None:
    cache_steps.apply(surgery, _CACHES)


PATCH = Patch(
    id="mlx_lm.rotating_steps",
    targets=cache_steps.targets(_CACHES),
    apply=apply,
    probe=probe,
)
