"""vllm_mlx.mtp_shared_layers: the drafts of E2B are verified, and its text stays."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import drafter, knowing
from mlx_gemma4_patches.hosts.vllm_mlx.drafting import answers
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.drafters import RIGHTNESS


class TestMtpSharedLayers(PatchContract):
    id = "vllm_mlx.mtp_shared_layers"

    def untouched(self) -> Any:
        return answers("dense", [tiny.prompt(4)], 6)[0]

    @pytest.mark.parametrize("rightness", RIGHTNESS)
    def test_drafts_are_verified_and_the_text_is_that_without(self, rightness: str) -> None:
        skip_unless_needed(self.id)
        prompt = tiny.prompt(20)
        (plain,), _ = answers("e2b", [prompt], 11, wants=False)
        draft = knowing(drafter("e2b"), [prompt + plain], RIGHTNESS[rightness])

        (drafted,), counts = answers("e2b", [prompt], 9, draft)

        assert drafted == plain[:9]
        assert counts["errors"] == 0
        assert (counts["accepted"] > 0) == (rightness != "always wrong")
