"""vllm_mlx.mtp_rollback: with a drafter, continuous batching says what it says without one."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import drafter, knowing
from mlx_gemma4_patches.hosts.vllm_mlx.drafting import answers
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.drafters import RIGHTNESS

_LIMIT = 9


class TestMtpRollback(PatchContract):
    id = "vllm_mlx.mtp_rollback"

    def untouched(self) -> Any:
        return answers("dense", [tiny.prompt(20)], 6, wants=False)[0]

    @pytest.mark.parametrize("rightness", RIGHTNESS)
    @pytest.mark.parametrize("lengths", [[4], [15], [40], [9, 30]], ids=str)
    def test_the_text_is_that_without_a_drafter(self, lengths: list[int], rightness: str) -> None:
        skip_unless_needed(self.id)
        prompts = [tiny.prompt(n, seed) for seed, n in enumerate(lengths)]
        plain, _ = answers("dense", prompts, _LIMIT + 2, wants=False)
        texts = [prompt + answer for prompt, answer in zip(prompts, plain, strict=True)]
        draft = knowing(drafter("dense"), texts, RIGHTNESS[rightness])

        drafted, counts = answers("dense", prompts, _LIMIT, draft)

        assert drafted == [answer[:_LIMIT] for answer in plain]
        assert counts["errors"] == 0
        if rightness == "always right":
            assert counts["rejected"] == 0 and counts["attempted"] <= _LIMIT // 2 + 1
        if rightness == "always wrong":
            assert counts["accepted"] == 0
