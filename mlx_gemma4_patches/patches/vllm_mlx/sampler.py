"""Continuous batching draws tokens as no request has asked for.

What the user sees: answers vary though ``temperature`` is 0, and no value changes that. From 0.3.0
on only with ``--chunked-prefill-tokens``.

Why: the scheduler gives its generator one sampler for all requests, of temperature 0.7 and top_p
0.9. Requests have samplers of their own only where they set ``top_k`` or ``min_p``; from 0.3.0 on
always, but for prompts that are read in chunks.

The fix: the generator's sampler draws nothing; when a batch is made, what is not drawn yet is drawn
by each request's own sampler, which is then the one of its later tokens too. It can be deleted when
no supported release is older than vllm-mlx 0.6.0.
"""

from __future__ import annotations

import mlx.core as mx

from ...hosts.vllm_mlx import batches
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULE = "vllm_mlx.mllm_batch_generator"
_GENERATOR = f"{_MODULE}:MLLMBatchGenerator"
_NOT_DRAWN = -1


class _Counting:
    """A model whose likeliest token is always 3."""

    model_type = "gemma4"

    @property
    def language_model(self):
        return self

    def make_cache(self):
        from mlx_lm.models.cache import KVCache

        return [KVCache()]

    def __call__(self, ids, cache=None, **inputs):
        keys = mx.zeros((*ids.shape, 1))[:, None]
        cache[0].update_and_fetch(keys, keys)
        return mx.broadcast_to(mx.arange(4.0), (*ids.shape, 4))


def probe() -> Finding:
    from vllm_mlx import mllm_batch_generator as host

    def unlikeliest(logprobs):
        return mx.argmin(logprobs, axis=-1)

    generator = batches.generator(_Counting(), processor=None, sampler=unlikeliest)
    generator._preprocess_request = lambda request: None  # the ids are there already
    made = []
    try:
        if hasattr(host, "install_chunked_prefill_mllm"):
            host.install_chunked_prefill_mllm(generator, budget=8)
        request = host.MLLMBatchRequest(uid=0, request_id="", prompt="", temperature=0.0)
        request.input_ids, request.is_text_only = mx.zeros((1, 20), mx.int32), True
        generator.insert([request])
        for _ in range(6):
            made += [response.token for response in generator.next()]
    finally:
        generator.close()
    made = made[:3]
    return Finding(made != [3, 3, 3], f"at temperature 0 tokens are {made}, the likeliest is 3")


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_GENERATOR}.__init__", _generator)
    surgery.wrap(f"{_MODULE}:MLLMBatch.__init__", _batch)
    surgery.wrap(f"{_GENERATOR}._step", _step)


def _generator(original):
    def __init__(self, *args, **named):
        original(self, *args, **named)
        model_type = str(getattr(self.language_model, "model_type", ""))
        if named.get("sampler") is not None and model_type.startswith("gemma4"):
            self.sampler = _draw_later

    return __init__


def _draw_later(logprobs: mx.array) -> mx.array:
    return mx.full(logprobs.shape[:-1], _NOT_DRAWN)


def _batch(original):
    def __init__(self, *args, **named):
        original(self, *args, **named)
        drawn = self.y.tolist()
        if _NOT_DRAWN not in drawn:
            return
        rows = zip(self.requests, self.logprobs, strict=True)
        self.y = mx.array([_sampler(request)(row[None]).item() for request, row in rows])
        self.samplers = [_sampler(request) for request in self.requests]

    return __init__


def _step(original):
    def _step(self, *args, **named):
        sampled, logprobs = original(self, *args, **named)
        batch = self.active_batch
        # 0.2.7 has the generator's sampler for every token
        if self.sampler is _draw_later and not hasattr(type(batch), "samplers"):
            rows = zip(batch.requests, logprobs, strict=True)
            sampled = mx.concatenate([_sampler(request)(row[None]) for request, row in rows])
        return sampled, logprobs

    return _step


def _sampler(request):
    """The sampler that a request asks for, made once."""
    if not hasattr(request, "_mlx_gemma4_sampler"):
        from mlx_lm.sample_utils import make_sampler

        request._mlx_gemma4_sampler = make_sampler(
            temp=request.temperature,
            top_p=request.top_p,
            top_k=getattr(request, "top_k", 0),
            min_p=getattr(request, "min_p", 0.0),
        )
    return request._mlx_gemma4_sampler


PATCH = Patch(
    id="vllm_mlx.sampler",
    targets=(
        f"{_GENERATOR}.__init__",
        f"{_GENERATOR}._process_prompts",
        f"{_GENERATOR}._step",
        f"{_MODULE}:install_chunked_prefill_mllm",
    ),
    apply=apply,
    probe=probe,
)
