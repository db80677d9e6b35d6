"""With a draft model, text differs from plain decoding once the sliding window is full.

What the user sees: other words than without ``--draft-model`` as soon as prompt and answer are
longer than the window (512 or 1024 tokens), at temperature 0 too. A conversation that goes on from
a cache past the window raises "Speculative decoding requires a trimmable prompt cache".

Why: ``trim_prompt_cache`` drops rejected tokens only if every cache ``is_trimmable``, which a full
sliding-window cache is not, and does nothing otherwise. ``is_trimmable`` is right in general: older
tokens are gone, and ``LRUPromptCache`` relies on it. Only tokens of the last step can be dropped.

The fix: ``speculative_generate_step`` sees sliding-window caches that can. The main model's tokens
come in one step, whose tail is cut (see ``gemma4.cache_tail``). The draft's come one at a time and
overwrite the oldest, so the state before each is kept until it is known how many are rejected.
Both are exact. It can be deleted when mlx-lm rewinds full sliding-window caches.

Upstream: ml-explore/mlx-lm#1423, #1427 (closed without a fix).
"""

from __future__ import annotations

import functools
import inspect

import mlx.core as mx

from ...gemma4 import tiny
from ...gemma4.cache_tail import drop_tail
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_lm.speculation import STEP, Caches, View
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TRIM = "mlx_lm.models.cache:trim_prompt_cache"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.generate import generate_step, speculative_generate_step

    model, draft = text_model("dense"), text_model("e2b")
    prompt, how = mx.array(tiny.prompt(20)), {"max_tokens": 6}  # the window is 16
    plain = [token for token, _ in generate_step(prompt, model, **how)]
    drafted = [token for token, *_ in speculative_generate_step(prompt, model, draft, **how)]
    if drafted != plain:
        return Finding(True, f"greedy tokens are {drafted} with a draft model, {plain} without")
    return Finding(False, "greedy tokens are the same with a draft model and without")


def apply(surgery: Surgery) -> None:
    surgery.wrap(STEP, _rewinding)


def _rewinding(original):
    signature = inspect.signature(original)

    def speculative_generate_step(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        if is_gemma4(given["model"]):
            if (caches := given.get("prompt_cache")) is not None:
                given["prompt_cache"] = Caches(caches, _rewindable(caches))
            for name in ("model", "draft_model"):
                given[name] = _with_rewindable_caches(given[name])
        return original(*call.args, **call.kwargs)

    return speculative_generate_step


def _with_rewindable_caches(model):
    from mlx_lm.models.cache import make_prompt_cache

    return View(model, make_cache=lambda: _rewindable(make_prompt_cache(model)))


def _rewindable(caches):
    """``caches`` with sliding-window caches seen as rewindable ones, which share their state."""
    from mlx_lm.models.cache import RotatingKVCache

    kind = _kind(RotatingKVCache)
    return [kind(cache) if type(cache) is RotatingKVCache else cache for cache in caches]


@functools.cache
def _kind(base):
    class Rewindable(base):
        __slots__ = ("_before",)  # states before steps of one token, oldest first

        def __init__(self, cache):
            self.__dict__ = cache.__dict__
            self._before = []

        def is_trimmable(self):
            return True

        def update_and_fetch(self, keys, values):
            if keys.shape[2] > 1:
                self._before = []
            elif self.keys is not None:
                # [...]: what is written into the cache's arrays must not show in these
                state = self.keys[...], self.values[...], self.offset, self._idx
                self._before.append(state)
            return super().update_and_fetch(keys, values)

        def trim(self, n):
            back = min(n, len(self._before))
            if back:
                self.keys, self.values, self.offset, self._idx = self._before[-back]
            self._before = []
            if n == back:
                return n
            if not super().is_trimmable():
                drop_tail(self, n - back)
            return back + super().trim(n - back)

    return Rewindable


PATCH = Patch(
    id="mlx_lm.speculative_rewind",
    targets=(STEP, _TRIM, "mlx_lm.models.cache:RotatingKVCache.is_trimmable"),
    apply=apply,
    probe=probe,
)
