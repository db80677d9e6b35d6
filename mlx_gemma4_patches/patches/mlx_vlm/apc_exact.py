"""The prefix cache answers a prompt that continues an earlier one with nonsense.

What the user sees: ``stream_generate(apc_manager=...)`` is right the first time; a longer prompt
that begins with one it has seen is answered as if it were another.

Why: Gemma 4's prefixes are kept whole, as snapshots of the caches. The one of a complete prompt is
taken when the first token comes out. By then the model has already read that token too: the
snapshot holds one token more than it is stored under.

The fix: a snapshot that holds more tokens than it is stored under is not stored, nor is one taken
out, from a disk that was written before. The other snapshot, of the prompt up to shortly before its
end, is right and serves the next prompt. It can be deleted when no supported release is older than
0.7.0, which takes its snapshots during the prompt.

Upstream: Blaizzy/mlx-vlm#1960 (merged, in 0.7.0).
"""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.tiny import model, processor
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_STORE = "mlx_vlm.apc:APCManager.store_exact_cache"
_LOOK_UP = "mlx_vlm.apc:APCManager.lookup_exact_cache"


def probe() -> Finding:
    try:
        from mlx_vlm.apc import APCManager
    except ImportError:
        raise NotApplicable("this mlx-vlm has no prefix cache") from None
    generate = importlib.import_module("mlx_vlm.generate").stream_generate
    made, prompt = (model("dense"), processor()), tiny.prompt(30)

    def logprobs(ids: list[int], manager: Any) -> mx.array:
        how = {"input_ids": mx.array([ids]), "max_tokens": 1, "temperature": 0.0}
        return next(generate(*made, "", apc_manager=manager, **how)).logprobs

    manager = APCManager(num_blocks=4)
    logprobs(prompt[:20], manager)
    error = mx.abs(logprobs(prompt, manager) - logprobs(prompt, None)).max().item()
    measured = f"a prompt that continues another: logits off by {error:.1e}"
    return Finding(error > 1e-2, measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_STORE, _store)
    surgery.wrap(_LOOK_UP, _look_up)


def _store(original):
    def store_exact_cache(self, token_ids, prompt_cache, **kwargs):
        if _holds_more(prompt_cache, len(token_ids)):
            return False
        return original(self, token_ids, prompt_cache, **kwargs)

    return store_exact_cache


def _look_up(original):
    def lookup_exact_cache(self, *args, **kwargs):
        prompt_cache, length = original(self, *args, **kwargs)
        if prompt_cache is not None and _holds_more(prompt_cache, length):
            return None, 0
        return prompt_cache, length

    return lookup_exact_cache


def _holds_more(prompt_cache: Any, length: int) -> bool:
    offsets = [getattr(cache, "offset", None) for cache in prompt_cache]
    return any(isinstance(offset, int) and offset > length for offset in offsets)


PATCH = Patch(id="mlx_vlm.apc_exact", targets=(_STORE, _LOOK_UP), apply=apply, probe=probe)
