"""mlx_vlm.mtp_kv_bits: with a drafter kv_bits says what it says without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer, drafter, knowing
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.drafters import RIGHTNESS

_KV = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0}


def _verified() -> Any:
    try:
        from mlx_vlm.speculative import mtp
    except ImportError:  # 0.5.0 verifies with the model itself
        return None
    hidden, states = mx.ones((1, 2, 2)), {"full_attention": (mx.ones(1), mx.zeros(1))}
    target = SimpleNamespace(speculative_verify_hidden=lambda *given: (hidden, states, None))
    made = mtp._mtp_verify_without_logits(target, mx.array([[7, 8]]), [])
    return [made.hidden, made.shared_kv_states]


class TestMtpKvBits(PatchContract):
    id = "mlx_vlm.mtp_kv_bits"

    def untouched(self) -> Any:
        """An answer without kv_bits, and a step of what has no more of a model than it needs."""
        return [answer(model("dense"), tiny.prompt(20), 8, drafter("dense")), _verified()]

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
