"""With a drafter, continuous batching goes on with rejected tokens in the cache.

What the user sees: with ``--mllm-draft-model`` and a request that asks for ``mllm_draft``, other
words than without as soon as the conversation is longer than the sliding window, from the second or
third word on, and HTTP 500 ("Negative dimensions not allowed") where a draft is accepted now and
then.

Why: a step verifies one draft. If it is rejected, caches that ``is_trimmable`` are trimmed, and the
others get back the ``state`` from before. A sliding-window cache is not trimmable once it is full,
and its ``state`` is not all of it: ``_offset``, ``_idx`` and ``rotated`` stay where the rejected
token has moved them. A cache that fills with that very step is neither trimmed nor put back.

The fix: the step sees sliding-window caches that can drop what the last step has written, which is
exact (see ``gemma4.cache_tail``) and saves the second pass through the model. It can be deleted
when vllm-mlx puts all of such a cache back.

Upstream: not reported yet.
"""

from __future__ import annotations

import functools
import inspect

from ...gemma4 import tiny
from ...gemma4.cache_tail import drop_tail
from ...hosts.vllm_mlx.drafting import INSTALL, answers
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    prompts = [tiny.prompt(20)]  # the window is 16
    (plain,), _ = answers("dense", prompts, 6, wants=False)
    (drafted,), _ = answers("dense", prompts, 6)
    if drafted != plain:
        return Finding(True, f"greedy tokens are {drafted} with a drafter, {plain} without")
    return Finding(False, "greedy tokens are the same with a drafter and without")


def apply(surgery: Surgery) -> None:
    surgery.wrap(INSTALL, _installing)


def _installing(original):
    signature = inspect.signature(original)

    def install_mtp_mllm(*args, **kwargs):
        batches = signature.bind(*args, **kwargs).arguments["batch_gen"]
        original(*args, **kwargs)
        if is_gemma4(getattr(batches, "model", None)):
            batches._step = _rewinding(batches._step)

    return install_mtp_mllm


def _rewinding(original):
    signature = inspect.signature(original)

    @functools.wraps(original)
    def _step(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.arguments["cache"] = [_rewindable(cache) for cache in call.arguments["cache"]]
        return original(*call.args, **call.kwargs)

    return _step


def _rewindable(cache):
    """A batch's sliding-window cache seen as a rewindable one, which shares its state."""
    is_sliding = hasattr(cache, "max_size") and hasattr(cache, "left_padding")
    return _kind(type(cache))(cache) if is_sliding else cache


@functools.cache
def _kind(base):
    class Rewindable(base):
        def __init__(self, cache):
            self.__dict__ = cache.__dict__

        def is_trimmable(self):
            return True

        def trim(self, n):
            if not super().is_trimmable():
                drop_tail(self, n)
            return super().trim(n)

    return Rewindable


PATCH = Patch(id="vllm_mlx.mtp_rollback", targets=(INSTALL,), apply=apply, probe=probe)
