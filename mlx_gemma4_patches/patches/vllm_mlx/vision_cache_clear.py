"""The second time an image is asked about, the answer is wrong.

What the user sees: with continuous batching, a request that repeats an image and its question gets
another answer than the first did, with 26B and 31B on mlx-vlm 0.6.1 and newer.

Why: the cache of preprocessed images is handed the request's own dictionary of further inputs,
which is emptied when the prompt has been read, to free memory (waybarrios/vllm-mlx#442). The second
request lacks ``mm_token_type_ids``, so that its image is not attended to in both directions.

The fix: the cache keeps a dictionary of its own. It can be deleted when vllm-mlx stores a copy or
lets go of the dictionary instead of emptying it.
"""

from __future__ import annotations

import mlx.core as mx

from ...patch import Finding, Patch
from ...surgery import Surgery

_GENERATOR = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator"
_STORE = "vllm_mlx.vision_embedding_cache:VisionEmbeddingCache.set_pixel_cache"


def probe() -> Finding:
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest
    from vllm_mlx.vision_embedding_cache import VisionEmbeddingCache

    cache = VisionEmbeddingCache()
    generator = MLLMBatchGenerator.__new__(MLLMBatchGenerator)
    generator.model = lambda ids, cache, **inputs: ids
    request = MLLMBatchRequest(uid=0, request_id="", prompt="")
    request.input_ids = request.pixel_values = mx.zeros((1, 1))
    request.extra_kwargs = {"mm_token_type_ids": mx.ones((1, 1))}
    cache.set_pixel_cache(
        ["an image"],
        request.prompt,
        pixel_values=request.pixel_values,
        input_ids=request.input_ids,
        extra_kwargs=request.extra_kwargs,
    )
    generator._run_vision_encoding(request)
    left = list(cache.get_pixel_cache(["an image"], request.prompt).extra_kwargs)
    measured = f"after one request the cached image has kept {', '.join(left) or 'no inputs'}"
    return Finding(not left, measured)


def apply(surgery: Surgery) -> None:
    def make(original):
        def set_pixel_cache(self, *args, **named):
            if named.get("extra_kwargs"):
                named["extra_kwargs"] = dict(named["extra_kwargs"])
            return original(self, *args, **named)

        return set_pixel_cache

    surgery.wrap(_STORE, make)


PATCH = Patch(
    id="vllm_mlx.vision_cache_clear",
    targets=(f"{_GENERATOR}._preprocess_request", f"{_GENERATOR}._run_vision_encoding", _STORE),
    apply=apply,
    probe=probe,
)
