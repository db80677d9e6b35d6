"""mlx_vlm.mtp_block_one: a block of one token gives the whole text."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer, drafter
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed


class TestMtpBlockOne(PatchContract):
    id = "mlx_vlm.mtp_block_one"

    def untouched(self) -> Any:
        return answer(model("dense"), tiny.prompt(20), 6, drafter("dense"), drafts=2)

    @pytest.mark.parametrize("shape", tiny.SHAPES)
    def test_the_text_is_that_of_plain_decoding(self, shape: str) -> None:
        skip_unless_needed(self.id)
        target, prompt = model(shape), tiny.prompt(20)
        plain = answer(target, prompt, 12)
        assert answer(target, prompt, 12, drafter(shape), drafts=0) == plain
