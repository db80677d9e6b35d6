"""A streamed answer about an image that was asked about before is wrong.

What the user sees, without continuous batching: the first answer is right; the same image and
question asked again as a stream, or as a completion, gets another answer each time.

Why: the keys and values of the first request are kept and handed to mlx-vlm, which reads the whole
prompt once more behind them. Nor are they copied: each such request makes them longer.

The fix: nothing is found there, as vllm-mlx has it for chat that is not streamed: mlx-vlm keeps
images of its own. It can be deleted when vllm-mlx does the same for ``fetch_cache``.
"""

from __future__ import annotations

from ...patch import Finding, Patch
from ...surgery import Surgery

_FETCH = "vllm_mlx.mllm_cache:MLLMPrefixCacheManager.fetch_cache"


def probe() -> Finding:
    from vllm_mlx.mllm_cache import MLLMPrefixCacheManager

    manager = MLLMPrefixCacheManager()
    manager.store_cache(["an image"], "hi", ["keys and values"], num_tokens=3)
    found, _ = manager.fetch_cache(["an image"], "hi")
    kept = "its keys and values again, in front of the whole prompt" if found else "no cache"
    return Finding(found is not None, f"a prompt that was asked before gets {kept}")


def apply(surgery: Surgery) -> None:
    def make(original):
        def fetch_cache(self, images, prompt):
            return None, False

        return fetch_cache

    surgery.wrap(_FETCH, make)


PATCH = Patch(id="vllm_mlx.image_cache", targets=(_FETCH,), apply=apply, probe=probe)
