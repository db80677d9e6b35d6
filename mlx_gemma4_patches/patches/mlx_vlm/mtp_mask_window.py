"""Past the sliding window the drafter sees too few keys, and fewer of its drafts are accepted.

What the user sees: the right text, later. With mlx-vlm 0.5.0 nearly every draft is rejected as soon
as the conversation is longer than the window (accepted a round on the tiny models: 0.08, not 0.67);
from 0.6.0 on a few more than need be (0.94 of 7, not 0.97).

Why: once older keys are evicted, the first key of the cache is no longer token 0, but the mask
still counts from there. In 0.5.0 the query is then a window or more away from all keys. Later
releases put it behind the last key where it should be on it, so the oldest key falls out.

The fix: the mask's numbers are counted from the first key that is held. Where the query belongs is
another question, and open: transformers puts it at the next token's position n and lets it see the
window and one key more, vLLM and mlx-vlm at n - 1. The text is the same either way.

It can be deleted when mlx-vlm counts so.

Upstream: not reported yet.
"""

from __future__ import annotations

import inspect

import mlx.core as mx

from ...hosts.mlx_vlm.drafting import ASSISTANT
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MASKS = f"{ASSISTANT}.masks:make_drafter_masks"
_KIND = "sliding_attention"


def probe() -> Finding:
    try:
        from mlx_vlm.speculative.drafters.gemma4_assistant.masks import make_drafter_masks
    except ImportError:
        raise NotApplicable("this mlx-vlm has no drafters of Gemma 4") from None
    window = 16
    knows_length = "kv_valid_len" in inspect.signature(make_drafter_masks).parameters

    def seen(tokens: int) -> int:
        held = min(tokens, window)
        keys = mx.zeros((1, 1, held, 4))
        position = tokens - 1 if knows_length else tokens  # where this release puts the query
        how = {"kv_valid_len": tokens} if knows_length else {}
        mask = make_drafter_masks({_KIND: (keys, keys)}, 1, position, window, **how)[_KIND]
        return held if mask is None else int((mask == 0).sum())

    before, after = seen(window), seen(3 * window)
    return Finding(
        after < before, f"the drafter sees {before} keys at the window's end and {after} behind it"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_MASKS, _counting_from_the_first_key)


def _counting_from_the_first_key(original):
    signature = inspect.signature(original)

    def make_drafter_masks(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        states = given["shared_kv_states"]
        masks = original(*call.args, **call.kwargs)
        if _KIND in states:
            end = given.get("kv_valid_len")
            end = given["query_offset"] if end is None else end
            evicted = _evicted(end, states[_KIND][0].shape[-2])
            given["shared_kv_states"] = {_KIND: states[_KIND]}
            for name in ("query_offset", "kv_valid_len"):
                if given.get(name) is not None:
                    given[name] = given[name] - evicted
            masks |= original(*call.args, **call.kwargs)
        return masks

    return make_drafter_masks


def _evicted(end, held):
    """How many of the tokens before ``end`` the cache no longer holds, per row if ``end`` is."""
    if isinstance(end, mx.array) and end.size > 1:
        return mx.maximum(end - held, 0)
    return max(int(end) - held, 0)


PATCH = Patch(id="mlx_vlm.mtp_mask_window", targets=(_MASKS,), apply=apply, probe=probe)
