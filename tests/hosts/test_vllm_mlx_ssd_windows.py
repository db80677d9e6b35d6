"""vllm_mlx.ssd_windows: no sliding window comes back from the disk as full attention."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from mlx_gemma4_patches.patches.vllm_mlx.ssd_windows import as_read
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("vllm_mlx.ssd_cache", reason="no prefix cache on disk in this vllm-mlx")

ID = "vllm_mlx.ssd_windows"


def scheduler(model: Any) -> Any:
    from vllm_mlx.scheduler import Scheduler

    made = Scheduler.__new__(Scheduler)
    made.model = model
    return made


class TestSsdWindows(PatchContract):
    id = ID

    def untouched(self) -> Any:
        """Full attention of a Gemma 4, and a window of another model."""
        from mlx_lm.models.cache import KVCache, RotatingKVCache

        found = []
        for model, cache in ((text_model("dense"), KVCache()), (None, RotatingKVCache(8))):
            cache.update_and_fetch(mx.ones((1, 1, 12, 4)), mx.ones((1, 1, 12, 4)))
            (read,) = scheduler(model)._reconstruct_ssd_layers([as_read(cache)])
            found.append([type(read).__name__, read.offset, read.keys, read.values])
        return found


def test_what_comes_back_says_what_the_whole_prompt_says() -> None:
    """Or nothing comes back, and the prompt is read."""
    model, prompt = text_model("dense"), tiny.prompt(40)
    caches = model.make_cache()
    model(mx.array([prompt[:-1]]), cache=caches)
    with patched(ID):
        read = scheduler(model)._reconstruct_ssd_layers([as_read(cache) for cache in caches])
    rest = prompt if read is None else prompt[-1:]
    said = model(mx.array([rest]), cache=read or model.make_cache())[0, -1]
    assert mx.allclose(said, model(mx.array([prompt]))[0, -1], atol=1e-4)
