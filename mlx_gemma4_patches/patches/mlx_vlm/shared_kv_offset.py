"""Gemma 4 E2B and E4B answer nonsense on mlx-vlm 0.4.4.

What the user sees: fluent-looking but wrong text from the models that share keys and values
between layers, batched or not. With mlx-lm 0.32 a batch stops with a ``broadcast_shapes`` error.

Why: a KV-shared layer reads ``offset`` and ``state`` from the cache of the layer it shares with,
after that layer has written to it (since Blaizzy/mlx-vlm#901). Its queries are rotated past their
own positions, and from mlx-lm 0.32 on ``state`` is the whole buffer, unwritten slots included.
Without a cache nothing is shared at all.

The fix: in one forward pass every cache is seen through a view whose ``offset`` is that of before
the pass and whose ``state`` is what ``update_and_fetch`` has returned. It can be deleted when
mlx-vlm 0.4.4 is no longer supported: 0.5.0 hands keys, values and offset from layer to layer.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, Patch
from ...surgery import Surgery

_LANGUAGE = "mlx_vlm.models.gemma4.language"
_MODEL = f"{_LANGUAGE}:Gemma4TextModel.__call__"


def probe() -> Finding:
    language_model = model("e2b").language_model
    prompt = mx.array([tiny.prompt(12)])
    whole = language_model(prompt, cache=language_model.make_cache()).logits[:, -1]
    cache = language_model.make_cache()
    language_model(prompt[:, :-1], cache=cache)
    stepped = language_model(prompt[:, -1:], cache=cache).logits[:, -1]
    error = mx.abs(whole - stepped).max().item()
    measured = f"the last token behind a cached prompt: logits off by {error:.1e}"
    return Finding(error > 1e-2, measured)


class _PassView:
    """A layer's cache, or None, in one forward pass as the layers that share it should read it."""

    def __init__(self, cache):
        offset = getattr(cache, "offset", 0)
        self._cache = cache
        self.offset = mx.array(offset) if isinstance(offset, mx.array) else offset

    @property
    def __class__(self):  # attention kernels are chosen by isinstance
        return type(self._cache)

    def __getattr__(self, name):
        return getattr(self._cache, name)

    def __setattr__(self, name, value):
        own = name in ("_cache", "offset", "state") or self._cache is None
        object.__setattr__(self if own else self._cache, name, value)

    def update_and_fetch(self, keys, values):
        update = getattr(self._cache, "update_and_fetch", lambda *new: new)
        self.state = update(keys, values)
        return self.state


def apply(surgery: Surgery) -> None:
    def make(original):
        def __call__(self, inputs=None, inputs_embeds=None, mask=None, cache=None, *rest, **named):
            owners = self.first_kv_shared_layer_idx
            if owners < len(self.layers):
                cache = [_PassView(c) for c in ([None] * owners if cache is None else cache)]
            return original(self, inputs, inputs_embeds, mask, cache, *rest, **named)

        return __call__

    surgery.wrap(_MODEL, make)


PATCH = Patch(
    id="mlx_vlm.shared_kv_offset",
    targets=(_MODEL, f"{_LANGUAGE}:Attention.__call__"),
    apply=apply,
    probe=probe,
)
