"""vllm-mlx's server processes what is new in a turn, and answers as in a fresh run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import conversations, reuse
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


@pytest.mark.parametrize(
    ("route", "patch_id"),
    [
        ("vllm_mlx", "vllm_mlx.prefix_reuse_unbatched"),
        ("vllm_mlx batched", "vllm_mlx.prefix_reuse"),
    ],
)
def test_a_turn_processes_what_is_new_in_it(route, patch_id, tmp_path: Path) -> None:
    skip_unless_needed(patch_id)
    with reuse.client(reuse.ROUTES[route], tmp_path / "model") as made:
        conversations.chat(made.ask)
        conversations.tools(made.ask, "c", thinking=True)
    reuse.check(made.turns)
