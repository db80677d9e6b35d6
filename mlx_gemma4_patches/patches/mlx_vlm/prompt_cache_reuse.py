"""A conversation that is kept in a ``PromptCacheState`` goes on with a wrong answer.

What the user sees: in the chat, the chat UI and wherever ``prompt_cache_state=`` is passed, an
edited question, or a history without its thoughts, is answered nonsense as soon as the conversation
is longer than the sliding window (up to 0.6.8). On every release, an answer that was stopped
half-way spoils the conversation that it had branched off.

Why: the state finds how many leading tokens of the prompt it has seen and the host cuts its caches
back to that many. A sliding-window cache that is full has forgotten what it would have to go back
to; up to 0.6.8 the host slices its ring buffer all the same, and fails on quantized caches. And
the caches are changed as soon as they are reused, the record of their tokens when the answer ends.

The fix: no prefix where the caches cannot be cut back to it, so that the host starts afresh, and a
record that forgets what is about to be overwritten. A conversation that only grows is reused whole
as before. It can be deleted when no supported release is older than 0.6.9 and the record is kept
while the caches change.

Upstream: Blaizzy/mlx-vlm#1715 (reported), #1748 (merged, in 0.6.9).
"""

from __future__ import annotations

import sys
from typing import Any

import mlx.core as mx

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_FIND = "mlx_vlm.generate:PromptCacheState.find_prefix_length"


def probe() -> Finding:
    from mlx_vlm.models.cache import KVCache, RotatingKVCache

    state = getattr(sys.modules["mlx_vlm.generate"], "PromptCacheState", None)
    if state is None:
        raise NotApplicable("this mlx-vlm keeps no prompt caches")

    def of_six_tokens(window: int) -> Any:
        made, caches = state(), [KVCache(), RotatingKVCache(window)]
        for cache in caches:
            for _ in range(6):
                cache.update_and_fetch(mx.zeros((1, 1, 1, 4)), mx.zeros((1, 1, 1, 4)))
        made.update([1, 2, 3, 4, 5, 6], caches)
        return made

    past = of_six_tokens(window=4).find_prefix_length([1, 2, 3, 9])
    if past and not _host_trims():
        return Finding(
            True, f"a full sliding window is said to be rewound to its first {past} tokens"
        )
    stopped = of_six_tokens(window=8)
    stopped.find_prefix_length([1, 2, 9, 9])
    claimed = stopped.find_prefix_length([1, 2, 3, 4, 5, 6, 7])
    if claimed > 2:
        return Finding(True, f"{claimed} tokens are reused though all but 2 were overwritten")
    return Finding(False, "only tokens that the caches still hold are reused")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_FIND, _find_prefix_length)


def _find_prefix_length(original):
    def find_prefix_length(self, new_ids):
        length = original(self, new_ids)
        if not length or not all(_can_go_back(cache, length) for cache in self.cache or ()):
            return 0
        if length < len(new_ids):  # else the host starts afresh
            self.token_ids = self.token_ids[:length]
        return length

    return find_prefix_length


def _can_go_back(cache: Any, length: int) -> bool:
    """Whether ``cache`` still has what it had after its first ``length`` tokens."""
    if isinstance(getattr(cache, "keys", None), (tuple, list)) and not _host_trims():
        return False  # quantized: the host slices arrays only
    size, offset = getattr(cache, "max_size", None), getattr(cache, "offset", 0)
    return not size or offset <= max(size, length)


def _host_trims() -> bool:
    """Whether the host leaves it to each cache to forget tokens, as since 0.6.9."""
    dispatch = sys.modules.get("mlx_vlm.generate.dispatch")
    return hasattr(dispatch, "_prefix_cache_trim_amount")


PATCH = Patch(id="mlx_vlm.prompt_cache_reuse", targets=(_FIND,), apply=apply, probe=probe)
