"""vllm-mlx's server processes what is new in a turn, and answers as in a fresh run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import reuse
from tests.hosts.contract import PatchContract, skip_unless_needed

pytest.importorskip("vllm_mlx")


class TestPrefixReuse(PatchContract):
    id = "vllm_mlx.prefix_reuse"

    def untouched(self) -> Any:
        """Logits of a model that reads for nobody."""
        language_model = model("dense").language_model
        cache = language_model.make_cache()
        return language_model(mx.array([tiny.prompt(24)]), cache=cache).logits


class TestPrefixReuseUnbatched(PatchContract):
    id = "vllm_mlx.prefix_reuse_unbatched"
    untouched = TestPrefixReuse.untouched


class TestPrefixReuseRouted(PatchContract):
    id = "vllm_mlx.prefix_reuse_routed"
    untouched = TestPrefixReuse.untouched


class TestPrefixReuseText(PatchContract):
    id = "vllm_mlx.prefix_reuse_text"

    def untouched(self) -> Any:
        """A cache, a scheduler and a batch of a model that is no Gemma 4."""
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.models.cache import KVCache
        from mlx_lm.models.llama import Model, ModelArgs
        from vllm_mlx.memory_cache import MemoryAwarePrefixCache

        mx.random.seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5}
        llama = Model(ModelArgs(model_type="llama", **sizes))
        prompt, cache, layer = tiny.prompt(150), MemoryAwarePrefixCache(llama), KVCache()
        layer.update_and_fetch(mx.ones((1, 1, 150, 4)), mx.ones((1, 1, 150, 4)))
        stored = cache.store(prompt, [layer])
        found, rest = cache.fetch([*prompt, 5])
        said = []
        if hasattr(BatchGenerator, "insert_segments"):
            generator = BatchGenerator(llama, max_tokens=3)
            generator.insert([[i % 300 for i in tiny.prompt(9)]])
            while len(said) < 3:
                said += [(r.uid, r.token, r.logprobs) for r in generator.next()[1]]
        return [stored, rest, [layer.state for layer in found], said]


@pytest.mark.parametrize(
    ("route", "patch_id", "letters"),
    [
        ("vllm_mlx", "vllm_mlx.prefix_reuse_routed", "cs"),
        ("vllm_mlx mllm", "vllm_mlx.prefix_reuse_unbatched", "pvw"),
        ("vllm_mlx batched", "vllm_mlx.prefix_reuse", "adhs"),
        ("vllm_mlx mllm batched", "vllm_mlx.prefix_reuse", "pvw"),
        ("vllm_mlx text", "vllm_mlx.prefix_reuse_text", "a"),
        ("vllm_mlx text batched", "vllm_mlx.prefix_reuse_text", "chs"),
    ],
)
def test_a_turn_processes_what_is_new_in_it(route, patch_id, letters, tmp_path: Path) -> None:
    skip_unless_needed(patch_id)
    with reuse.client(reuse.ROUTES[route], tmp_path / "model") as made:
        reuse.hold(made, reuse.ROUTES[route], letters)
    reuse.check(made.turns)
