"""vllm-mlx draws tokens as each request asks for."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts import batching
from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")
pytestmark = pytest.mark.usefixtures("no_metal_needed")

ID = "vllm_mlx.sampler"
_TOKENS = 8
_PROMPTS = ("One more", "Some words that do not fit into one window")


def _made(sampler, model_type: str) -> list[int]:
    """Tokens of a model that finds each id as likely as it is large."""
    from mlx_lm.models.cache import KVCache
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest

    class Model:
        def make_cache(self):
            return [KVCache()]

        def __call__(self, ids, cache=None, **inputs):
            keys = mx.zeros((*ids.shape, 1))[:, None]
            cache[0].update_and_fetch(keys, keys)
            return mx.broadcast_to(mx.arange(4.0), (*ids.shape, 4))

    made = Model()
    made.model_type, made.language_model = model_type, made
    generator = MLLMBatchGenerator(made, processor=None, sampler=sampler)
    generator._preprocess_request = lambda request: None
    try:
        request = MLLMBatchRequest(uid=0, request_id="", prompt="", temperature=0.0)
        request.input_ids, request.is_text_only = mx.zeros((1, 20), mx.int32), True
        generator.insert([request])
        return [response.token for _ in range(3) for response in generator.next()]
    finally:
        generator.close()


class TestSampler(PatchContract):
    id = ID

    def untouched(self):
        """Other models, and a generator that was given no sampler."""

        def unlikeliest(logprobs):
            return mx.argmin(logprobs, axis=-1)

        return _made(unlikeliest, "qwen2_5_vl"), _made(None, "gemma4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("sampler") / "gemma-4-tiny"
    return batching.save("dense", made, batching.PLAIN_TEMPLATE)


@pytest.mark.parametrize("chunk", [0, 8])
def test_greedy_requests_get_the_likeliest_tokens_whatever_others_ask_for(folder, chunk) -> None:
    asked = [[batching.message(prompt)] for prompt in _PROMPTS]
    how = {"max_tokens": _TOKENS, "temperature": 0.0}
    with batching.engine(folder, chunked_prefill_tokens=chunk, enable_prefix_cache=False) as engine:
        wanted = [batching.alone("dense", folder, prompt, _TOKENS) for prompt in _PROMPTS]
        assert [engine.answer(*messages, **how).text for messages in asked] == wanted
        # with next to no probability mass left, temperature 1 is as good as 0
        how = {"max_tokens": _TOKENS, "temperature": 1.0, "top_p": 1e-6}
        assert [answer.text for answer in engine.answers(*asked, **how)] == wanted


def test_a_high_temperature_varies(folder) -> None:
    how = {"max_tokens": _TOKENS, "temperature": 5.0, "top_p": 1.0}
    with batching.engine(folder, enable_prefix_cache=False) as engine:
        asked = [[batching.message(_PROMPTS[0])]] * 8
        assert len({answer.text for answer in engine.answers(*asked, **how)}) == len(asked)
