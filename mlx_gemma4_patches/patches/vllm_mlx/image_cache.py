"""A streamed answer about an image that was asked about before is wrong.

What the user sees, without continuous batching: the first answer is right; the same image and
question asked again as a stream, or as a completion, gets another answer each time.

Why: the keys and values of the first request are kept and handed to mlx-vlm, which reads the whole
prompt once more behind them. Nor are they copied: each such request makes them longer.

The fix: for Gemma 4 these two ways to answer use no cache, as if asked not to. mlx-vlm keeps images
of its own, and the manager of the cache stays what it is for everybody else. It can be deleted when
vllm-mlx reads the prompt once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace

from ...hosts.vllm_mlx import unbatched
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_FETCH = "vllm_mlx.mllm_cache:MLLMPrefixCacheManager.fetch_cache"
_MODEL = "vllm_mlx.models.mllm:MLXMultimodalLM"
_GENERATE, _STREAM = f"{_MODEL}.generate", f"{_MODEL}.stream_chat"


def probe() -> Finding:
    known, given = ["keys and values"], []

    def generate(*args, prompt_cache, **how):
        given.append(prompt_cache)
        return SimpleNamespace(text="so", prompt_tokens=1, generation_tokens=1)

    with unbatched.model(generate, enable_cache=True) as model:
        model._prepare_images = lambda images: images
        model._cache_manager.store_cache(["an image"], "hi", known, num_tokens=3)
        model.generate("hi", ["an image"])
    reused = given[0] is known
    kept = "its keys and values again, in front of the whole prompt" if reused else "no cache"
    return Finding(reused, f"a prompt that was asked before gets {kept}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_GENERATE, _without_cache)
    surgery.wrap(_STREAM, _streamed_without_cache)


def _without_cache(original: Callable) -> Callable:
    signature = inspect.signature(original)

    def generate(self, *args, **kwargs):
        if is_gemma4(self):
            call = signature.bind(self, *args, **kwargs)
            call.arguments["use_cache"] = False
            return original(*call.args, **call.kwargs)
        return original(self, *args, **kwargs)

    return generate


def _streamed_without_cache(original: Callable) -> Callable:
    def stream_chat(self, *args, **kwargs):
        if is_gemma4(self):
            kwargs["use_cache"] = False
        yield from original(self, *args, **kwargs)

    return stream_chat


PATCH = Patch(
    id="vllm_mlx.image_cache",
    targets=(_FETCH, f"{_GENERATE}(self, *, use_cache)", f"{_STREAM}(self, *, use_cache)"),
    apply=apply,
    probe=probe,
)
