"""vllm-mlx's batches of rotating caches."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.rotating_guard"


def _encode(model_type: str, cache: list) -> mx.array:
    """What vllm-mlx's prefill makes of a model that says 0, 1, 2."""
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest

    generator = MLLMBatchGenerator.__new__(MLLMBatchGenerator)
    generator.model = lambda ids, cache, **kwargs: mx.arange(3)
    generator.language_model = SimpleNamespace(model_type=model_type)
    request = MLLMBatchRequest(uid=0, request_id="", prompt="")
    request.input_ids = mx.array([1, 2])
    return generator._run_vision_encoding(request, cache=cache)


class TestRotatingGuard(PatchContract):
    id = ID

    def untouched(self):
        from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache

        classes = []
        for model_type, made in (
            ("qwen2_5_vl", KVCache()),
            ("gemma3", RotatingKVCache(4)),
            ("gemma4_text", KVCache()),
            ("gemma4_text", QuantizedKVCache()),
        ):
            cache = [made]
            classes.append([_encode(model_type, cache), type(cache[0]).__qualname__])
            assert type(cache[0]) is type(made)
        return classes


def test_prompts_processed_together_leave_a_batch_that_decodes_as_each_alone() -> None:
    skip_unless_needed(ID)  # others process prompts otherwise; see test_vllm_mlx_batching.py
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest

    dense = model("dense")
    prompts = [tiny.prompt(n, seed=n) for n in (40, 12)]
    requests = []
    for uid, prompt in enumerate(prompts):
        requests.append(MLLMBatchRequest(uid=uid, request_id=str(uid), prompt=""))
        requests[-1].input_ids = mx.array([prompt])
    generator = MLLMBatchGenerator(dense, processor=None)
    generator._preprocess_request = lambda request: None
    try:
        batch = generator._process_prompts(requests)
        made = [batch.y]
        for _ in range(20):
            made.append(generator._step(made[-1][:, None], batch.cache)[0])
    finally:
        generator.close()
    for prompt, row in zip(prompts, mx.stack(made, axis=1).tolist(), strict=True):
        cache, new = dense.language_model.make_cache(), prompt
        for token in row:
            logits = dense.language_model(mx.array([new]), cache=cache).logits[0, -1]
            assert mx.argmax(logits).item() == token
            new = [token]


def test_quantized_caches_are_still_refused() -> None:
    from mlx_lm.models.cache import KVCache, QuantizedKVCache

    cache = [QuantizedKVCache()]
    _encode("gemma4_text", cache)
    assert not isinstance(cache[0], KVCache)
