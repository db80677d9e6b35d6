"""mlx_vlm.mtp_kv_bits: with a drafter kv_bits says what it says without one."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer, drafter, knowing
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.drafters import RIGHTNESS

_KV = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0}


class TestMtpKvBits(PatchContract):
    id = "mlx_vlm.mtp_kv_bits"

    def untouched(self) -> Any:
        return answer(model("dense"), tiny.prompt(20), 8, drafter("dense"))

    @pytest.mark.parametrize("rightness", [None, "right two times of three"])
    @pytest.mark.parametrize(("shape", "length"), [("e2b", 40), ("dense", 4)])
    def test_the_text_is_that_without_a_drafter(
        self, shape: str, length: int, rightness: str | None
    ) -> None:
        skip_unless_needed(self.id)
        target, prompt = model(shape), tiny.prompt(length)
        plain = answer(target, prompt, 20, **_KV)
        draft = drafter(shape)
        if rightness:
            draft = knowing(draft, [prompt + plain], RIGHTNESS[rightness])
        assert answer(target, prompt, 12, draft, **_KV) == plain[:12]
