"""vllm-mlx 0.2.7 never answers a Gemma 4 request with continuous batching.

What the user sees: the client waits for ever; the log repeats ``MLLM continuous batching requires
standard KVCache but got RotatingKVCache``.

Why: a check that was written against quantized caches lets plain ``KVCache`` pass only. Gemma 4's
first layer has a sliding window, so its cache is a ``RotatingKVCache``, which merges as well.

The fix: the cache that is looked at becomes an instance of both classes; its methods stay its own.
It can be deleted when no supported release is older than vllm-mlx 0.2.8, which has no such check
(waybarrios/vllm-mlx#268).
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_GENERATOR = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator"


def probe() -> Finding:
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest

    constants = MLLMBatchGenerator._process_prompts.__code__.co_consts
    if not any("requires standard KVCache" in str(constant) for constant in constants):
        raise NotApplicable("this vllm-mlx does not look at the class of its caches")
    generator = MLLMBatchGenerator(model("dense"), processor=None)
    generator._preprocess_request = lambda request: None  # the ids are there already
    request = MLLMBatchRequest(uid=0, request_id="", prompt="")
    request.input_ids = mx.array([tiny.prompt(20)])
    try:
        offset = generator._process_prompts([request]).cache[0].offset.item()
    except ValueError as error:
        return Finding(True, f"a request fails: {str(error).partition('. ')[0]}")
    finally:
        generator.close()
    return Finding(offset != 20, f"after 20 tokens the next one is put at position {offset}")


def apply(surgery: Surgery) -> None:
    def make(original):
        def _run_vision_encoding(self, request, cache=None):
            logits = original(self, request, cache)
            # Other models were not made for batches of rotating caches: they keep their error.
            if cache and str(getattr(self.language_model, "model_type", "")).startswith("gemma4"):
                _let_pass(cache[0])
            return logits

        return _run_vision_encoding

    surgery.wrap(f"{_GENERATOR}._run_vision_encoding", make)


def _let_pass(cache) -> None:
    """Make a mergeable cache count as mlx-lm's ``KVCache``; quantized caches cannot be merged."""
    from mlx_lm.models.cache import KVCache

    own = type(cache)
    if hasattr(own, "merge") and not issubclass(own, KVCache):
        cache.__class__ = type(own.__name__, (own, KVCache), {})


PATCH = Patch(
    id="vllm_mlx.rotating_guard",
    targets=(f"{_GENERATOR}._process_prompts", f"{_GENERATOR}._run_vision_encoding"),
    apply=apply,
    probe=probe,
)
