"""KV-cache quantization of a model that has sliding windows and shared keys and values.

A sliding-window cache stays as it is: it never holds more than its window. A KV-shared layer that
is handed quantized keys and values gets a stand-in for the cache they come from, which says how
they are quantized; the attention kernel is chosen by that.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import mlx.core as mx

from ..settings import log
from ..surgery import Surgery


def apply(surgery: Surgery, to_quantized: str, attention: str) -> None:
    """Let caches of Gemma 4 answer ``to_quantized`` with themselves.

    Args:
        to_quantized: the method of the host's sliding-window cache that raises. Caches that no
            layer of Gemma 4 has used still raise.
        attention: ``__call__`` of the host's Gemma 4 attention layer, which is called with
            ``(x, mask, cache, shared_kv=, offset=)`` or less and has a ``layer_type``.
    """
    surgery.wrap(attention, _attention)
    surgery.wrap(to_quantized, _to_quantized)


def _attention(original):
    def call(self, x, mask=None, cache=None, *args, **kwargs):
        # once a layer and token: as little as can be
        if cache is not None:
            cache._mlx_gemma4_layer_type = self.layer_type
        else:
            shared_kv = args[0] if args else kwargs.get("shared_kv")
            if shared_kv is not None and isinstance(shared_kv[0], (tuple, list)):
                cache = _Quantized.of(shared_kv[0], self.head_dim)
        return original(self, x, mask, cache, *args, **kwargs)

    return call


class _Quantized(NamedTuple):
    """Stands in for the cache that quantized keys and values come from."""

    group_size: int
    bits: int

    @classmethod
    def of(cls, keys: tuple[mx.array, mx.array, mx.array], head_dim: int) -> _Quantized:
        """``keys``: uint32 (B, heads, T, head_dim * bits / 32), scales (.., groups), biases."""
        packed, scales, _ = keys
        return cls(head_dim // scales.shape[-1], 32 * packed.shape[-1] // head_dim)

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        return keys, values  # they are all there: a KV-shared layer adds none


def _to_quantized(original):
    def to_quantized(self, group_size=64, bits=4):
        layer_type = getattr(self, "_mlx_gemma4_layer_type", None)
        if layer_type is None:
            return original(self, group_size=group_size, bits=bits)
        say(layer_type, self.max_size, bits)
        return self

    return to_quantized


@functools.cache
def say(layer_type: str, size: int, bits: int) -> None:
    """Log what stays unquantized, once."""
    log.warning(
        "kv_bits=%d: the caches of %s layers stay unquantized; none holds more than %d tokens",
        bits,
        layer_type,
        size,
    )
