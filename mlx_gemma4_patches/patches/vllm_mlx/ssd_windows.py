"""Sliding windows come back from the prefix cache on disk as full attention.

What the user sees: with ``--continuous-batching --ssd-cache-dir``, an answer that has nothing to do
with its prompt once the memory for prefixes has run out and a conversation has come back from the
disk. 0.5.0 and 0.6.0 notice what they have read and process the prompt, at the cost of reading it.

Why: what has been written says which layers are windows and where they stand; what is read makes a
``KVCache`` of each, whose rows then have the positions of other tokens.

The fix: of a Gemma 4 an entry with windows is not taken, and the prompt is processed. It can be
deleted when the host makes windows of windows.

Upstream: not reported yet.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from ...gemma4 import tiny
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "vllm_mlx.scheduler:Scheduler._reconstruct_ssd_layers"


def probe() -> Finding:
    from vllm_mlx.scheduler import Scheduler

    if not hasattr(Scheduler, "_reconstruct_ssd_layers"):
        raise NotApplicable("this vllm-mlx has no prefix cache on disk")
    made = Scheduler.__new__(Scheduler)
    made.model = text_model("dense")
    caches = made.model.make_cache()
    made.model(mx.array([tiny.prompt(40)]), cache=caches)
    read = made._reconstruct_ssd_layers([as_read(cache) for cache in caches]) or ()
    wrong = sum(type(x) is not type(y) for x, y in zip(read, caches, strict=False))
    windows = sum(hasattr(cache, "max_size") for cache in caches)
    return Finding(wrong > 0, f"of {windows} sliding windows {wrong} come back as full attention")


def as_read(cache: Any) -> dict[str, Any]:
    """A layer as the host reads it from its disk."""
    attributes = ("offset", "max_size", "keep", "step", "_idx")
    rows = {name: np.array(getattr(cache, name)) for name in ("keys", "values")}
    return rows | {name: getattr(cache, name) for name in attributes if hasattr(cache, name)}


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _without_windows)


def _without_windows(original):
    def _reconstruct_ssd_layers(self, layer_dicts):
        if is_gemma4(self.model) and any("max_size" in layer for layer in layer_dicts):
            return None
        return original(self, layer_dicts)

    return _reconstruct_ssd_layers


PATCH = Patch(id="vllm_mlx.ssd_windows", targets=(_TARGET,), apply=apply, probe=probe)
