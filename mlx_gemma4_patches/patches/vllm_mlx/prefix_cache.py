"""A prompt that begins like an earlier one is answered wrongly.

What the user sees: with continuous batching the first answer is right, the same question asked
again, the next turn, or another question under the same system prompt gets nonsense.

Why: an entry of the prefix cache is rewound to the tokens that are asked for. A sliding window that
is past its size has dropped what the rewound window should hold: ``_trim_cache_offset`` fills the
gap with zeros, which are attended to. Of mlx-vlm's own caches it moves the wrong end. And the two
engines disagree on what an exact hit holds: the text engine feeds the last token a second time.

The fix: what cannot be rewound exactly is neither stored nor found, which costs a prefill and is
always right. What can be is found as a copy that holds all tokens but those left to be fed. Entries
without a sliding window are left to vllm-mlx. It can be deleted when no supported release is older
than vllm-mlx 0.5.0, which refuses such entries.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import mlx.core as mx

from ...patch import Finding, Patch
from ...surgery import Surgery

_TRIM = "vllm_mlx.memory_cache:_trim_cache_offset"
_CACHE = "vllm_mlx.memory_cache:MemoryAwarePrefixCache"


def probe() -> Finding:
    from mlx_vlm.models.cache import RotatingKVCache
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache

    length, window = 200, 4
    layer = RotatingKVCache(window)
    for start in range(0, length, 50):  # keys count from 1
        keys = mx.arange(start + 1.0, start + 51.0)[None, None, :, None]
        layer.update_and_fetch(keys, keys)
    cache = MemoryAwarePrefixCache(SimpleNamespace())
    cache.store(list(range(length)), [layer])
    shared = length - 2
    layers, _ = cache.fetch([*range(shared), 0])
    if not layers:
        return Finding(False, "a sliding window that cannot be rewound is not reused")
    kept = layers[0].keys[0, 0, -window:, 0].tolist()
    wanted = [float(shared - i) for i in reversed(range(window))]
    measured = f"after token {shared} the window holds tokens {kept}"
    if kept != wanted:
        measured += f", not {wanted}"
    return Finding(kept != wanted, measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TRIM, _trim)
    surgery.wrap(f"{_CACHE}.store", _store)
    surgery.wrap(f"{_CACHE}.fetch", _fetch)


def _trim(original):
    def _trim_cache_offset(cache, trim_by):
        if trim_by <= 0 or not _has_window(cache):
            return original(cache, trim_by)
        layers = []
        for layer in cache:
            if isinstance(layer.keys, mx.array):
                layers.append(_rewound(layer, trim_by))
            else:  # vllm-mlx's quantized entries
                layers += original([layer], trim_by)
        if any(layer is None for layer in layers):
            return []  # the store takes no empty entry
        _evaluate(layers)
        return layers

    return _trim_cache_offset


def _store(original):
    def store(self, tokens, cache, *args, **named):
        if _has_window(cache):
            _evaluate(cache)
        return original(self, tokens, cache, *args, **named)

    return store


def _fetch(original):
    def fetch(self, tokens):
        before = copy.copy(self._stats)
        cache, remaining = original(self, tokens)
        if cache is None or (cache and not _has_window(cache)):
            return cache, remaining
        # at least one token is fed, or there are no logits
        limit = len(tokens) - max(1, len(remaining))
        reused = min([limit, *(layer.offset for layer in cache)])
        layers = [_rewound(layer, layer.offset - reused) for layer in cache]
        if layers and not any(layer is None for layer in layers):
            _evaluate(layers)
            return layers, tokens[reused:]
        before.misses += 1
        self._stats, self._last_match_type = before, "miss"
        return None, tokens

    return fetch


def _has_window(cache) -> bool:
    """Whether these are key-value caches and a sliding window is among them; false of None."""
    return any(isinstance(getattr(layer, "max_size", None), int) for layer in cache or ()) and all(
        getattr(layer, "keys", None) is not None for layer in cache
    )


def _rewound(layer, count: int):
    """A copy of a layer's cache without its last ``count`` tokens.

    None if nothing is left, and if a sliding window has dropped tokens that it would have to show.
    """
    length = layer.offset - count
    if length <= 0:
        return None
    slides = hasattr(layer, "max_size")
    is_full = slides and layer.offset > layer.max_size
    # Of a prompt's last part all is kept, in order, until the next token; what has not slid is too.
    end = layer.keys.shape[-2] - count if is_full else length
    if is_full and count and end < layer.max_size:
        return None
    rewound = copy.copy(layer)
    rewound.keys, rewound.values = layer.keys[..., :end, :], layer.values[..., :end, :]
    rewound.offset = length
    if slides and (count or not is_full):
        rewound._idx = end
    return rewound


def _evaluate(layers) -> None:
    """Entries go from thread to thread, and what is lazy in one cannot be evaluated in another."""
    mx.eval([(layer.keys, layer.values) for layer in layers])


PATCH = Patch(
    id="vllm_mlx.prefix_cache",
    targets=(_TRIM, f"{_CACHE}.fetch", f"{_CACHE}.store"),
    apply=apply,
    probe=probe,
)
