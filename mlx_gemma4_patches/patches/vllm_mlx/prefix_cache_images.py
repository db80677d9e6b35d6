"""A question about an image gets the answer to another image.

What the user sees: with continuous batching and a prompt that fits into the sliding window, the
same question about the next image is answered as it was for the first.

Why: the prefix cache of multimodal models knows prompts by their token ids, and every image has the
same ids.

The fix: prompts with images, audio or video are neither stored there nor looked for. It can be
deleted when no supported release is older than vllm-mlx 0.6.0, which keeps text alone.
"""

from __future__ import annotations

import mlx.core as mx

from ...hosts.vllm_mlx import batches
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MODULE = "vllm_mlx.mllm_batch_generator"
_GENERATOR = f"{_MODULE}:MLLMBatchGenerator"
_CACHE = "vllm_mlx.memory_cache:MemoryAwarePrefixCache"
_MEDIA = ("image_token_id", "audio_token_id", "video_token_id")
_MARK = "_mlx_gemma4_media"


class _Seeing:
    """What the generator looks at in a model."""

    model_type = "gemma4"
    image_token_id, audio_token_id, video_token_id = 7, 8, 9

    @property
    def language_model(self):
        return self

    @property
    def config(self):
        return self


def probe() -> Finding:
    from mlx_lm.models.cache import KVCache
    from vllm_mlx import mllm_batch_generator as host

    if hasattr(host, "is_text_only_prefix_cache_request"):
        raise NotApplicable("this vllm-mlx keeps prefixes of text alone")
    if not hasattr(host, "MemoryCacheConfig"):
        raise NotApplicable("this vllm-mlx keeps no prefixes of multimodal models")
    generator = batches.generator(
        _Seeing(), processor=None, prefix_cache_config=host.MemoryCacheConfig()
    )
    prompt = [3, 7, 7, *range(10, 210)]
    layer = KVCache()
    layer.update_and_fetch(mx.zeros((1, 1, len(prompt), 1)), mx.zeros((1, 1, len(prompt), 1)))
    try:
        generator.prefix_cache.store(prompt, [layer])
        found, _ = generator.prefix_cache.fetch(prompt)
    finally:
        generator.close()
    return Finding(
        bool(found), f"for another image the cached prompt is {'' if found else 'not '}reused"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_GENERATOR}.__init__", _generator)
    surgery.wrap(f"{_CACHE}.store", _store)
    surgery.wrap(f"{_CACHE}.fetch", _fetch)


def _generator(original):
    def __init__(self, *args, **named):
        original(self, *args, **named)
        if is_gemma4(self.model) and self.prefix_cache is not None:
            media = {getattr(self.model.config, name, None) for name in _MEDIA}
            setattr(self.prefix_cache, _MARK, media)

    return __init__


def _store(original):
    def store(self, tokens, *args, **named):
        return not _has_media(self, tokens) and original(self, tokens, *args, **named)

    return store


def _fetch(original):
    def fetch(self, tokens):
        if not _has_media(self, tokens):
            return original(self, tokens)
        self._stats.misses += 1
        self._last_match_type = "miss"
        return None, tokens

    return fetch


def _has_media(cache, tokens) -> bool:
    return not getattr(cache, _MARK, set()).isdisjoint(tokens)


PATCH = Patch(
    id="vllm_mlx.prefix_cache_images",
    targets=(
        f"{_GENERATOR}.__init__",
        f"{_GENERATOR}._process_prompts",
        f"{_CACHE}.store",
        f"{_CACHE}.fetch",
    ),
    apply=apply,
    probe=probe,
)
