"""Steps of one token and of several, mixed in one sliding-window batch.

``BatchRotatingKVCache`` writes one token in place, into a ring, and concatenates several. It
chooses by the number of tokens alone. While padding on the right is pending, one token must be
concatenated too, or the padding evicts content. And a step of several tokens puts the ring in
order first, but only in the update: the mask, which is made before, is still that of the ring and
hides a key of every row shorter than the window.
"""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx

from ..patch import Finding
from ..surgery import Surgery


def targets(module: str) -> tuple[str, ...]:
    return (
        f"{module}:BatchRotatingKVCache.update_and_fetch",
        f"{module}:BatchRotatingKVCache.make_mask",
    )


def apply(surgery: Surgery, module: str) -> None:
    """Repair the sliding-window batch cache of ``module``."""
    update, mask = targets(module)
    if "_lengths" not in surgery.resolve(update).__code__.co_names:  # else the host looks itself
        surgery.wrap(update, _update_and_fetch)
    surgery.wrap(mask, _make_mask)


# every token passes here once a layer: what is cheap to ask comes first


def _update_and_fetch(original):
    def update_and_fetch(cache, keys, values):
        if getattr(cache, "_lengths", None) is not None and keys.shape[2] == 1:
            return cache._update_concat(keys, values)
        return original(cache, keys, values)

    return update_and_fetch


def _make_mask(original):
    def make_mask(cache, N, *args, **kwargs):
        if N == 1 and getattr(cache, "_lengths", None) is None:
            return original(cache, N, *args, **kwargs)
        cache._temporal_order()
        if N == 1:  # the first of two concatenated tokens sees what a single one would
            return original(cache, 2, *args, **kwargs)[..., :1, :-1]
        return original(cache, N, *args, **kwargs)

    return make_mask


def probe(caches: ModuleType) -> Finding:
    """Whether a row of one token sees itself and its past in such steps."""
    batch = caches.BatchRotatingKVCache(4, [4, 0])
    for count in (4, 1, 2):  # the second step rotates
        mask = batch.make_mask(count, window_size=4)
        batch.update_and_fetch(mx.zeros((2, 1, count, 4)), mx.zeros((2, 1, count, 4)))
    visible = mask[0, 0].sum(axis=-1).tolist()
    if visible != [2, 3]:
        measured = f"the second and third token of a short row see {visible} keys, not [2, 3]"
        return Finding(True, measured)
    batch = caches.BatchRotatingKVCache(4, [3, 0])
    batch.update_and_fetch(mx.zeros((2, 1, 4, 4)), mx.zeros((2, 1, 4, 4)))
    batch.prepare(lengths=[1, 0], right_padding=[0, 1])
    visible = batch.make_mask(1, window_size=4)[0].flatten().tolist()
    try:
        batch.update_and_fetch(mx.zeros((2, 1, 1, 4)), mx.zeros((2, 1, 1, 4)))
    except RuntimeError as error:
        return Finding(True, f"a step of one token with padding fails: {error}")
    if visible != [False, False, True, True]:
        places = [place for place, seen in enumerate(visible) if seen]
        measured = f"one token with padding sees positions {places}, not [2, 3]"
        return Finding(True, measured)
    return Finding(False, "every token sees all of its window")
