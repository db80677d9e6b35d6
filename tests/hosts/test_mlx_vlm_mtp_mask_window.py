"""mlx_vlm.mtp_mask_window: past the window the drafter sees as many keys as up to it."""

from __future__ import annotations

import inspect
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer, drafter
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed

_WINDOW, _KIND = 16, "sliding_attention"


def _seen(tokens: list[int], held: int) -> list[list[int]]:
    """The tokens that a query behind each row's ``tokens`` sees of the last ``held``."""
    from mlx_vlm.speculative.drafters.gemma4_assistant.masks import make_drafter_masks

    known = inspect.signature(make_drafter_masks).parameters
    end: Any = mx.array(tokens) if len(tokens) > 1 else tokens[0]
    keys = mx.zeros((len(tokens), 1, held, 4))
    how = {"kv_valid_len": end} if "kv_valid_len" in known else {}
    position = end - 1 if how else end
    mask = make_drafter_masks({_KIND: (keys, keys)}, 1, position, _WINDOW, **how)[_KIND]
    if mask is None:
        mask = mx.zeros((len(tokens), 1, 1, held))
    rows = (mx.broadcast_to(mask, (len(tokens), 1, 1, held))[:, 0, 0] == 0).tolist()
    first = [max(n - held, 0) for n in tokens]
    return [
        [place + i for i, sees in enumerate(row) if sees]
        for place, row in zip(first, rows, strict=True)
    ]


class TestMtpMaskWindow(PatchContract):
    id = "mlx_vlm.mtp_mask_window"

    def untouched(self) -> Any:
        return answer(model("dense"), tiny.prompt(4), 8, drafter("dense"), drafts=2)

    @pytest.mark.parametrize("held", [16, 20])
    @pytest.mark.parametrize("tokens", [[40], [40, 33]], ids=str)
    def test_the_keys_seen_are_the_newest(self, tokens: list[int], held: int) -> None:
        skip_unless_needed(self.id)
        up_to_the_window = len(_seen([_WINDOW], _WINDOW)[0])
        for end, seen in zip(tokens, _seen(tokens, held), strict=True):
            assert seen[-1] == end - 1
            assert seen == list(range(seen[0], end))
            assert _WINDOW - 1 <= len(seen) <= up_to_the_window

    @pytest.mark.parametrize("shape", ["e2b", "dense"])
    def test_the_text_is_that_of_plain_decoding(self, shape: str) -> None:
        skip_unless_needed(self.id)
        target, prompt = model(shape), tiny.prompt(40)
        assert answer(target, prompt, 12, drafter(shape)) == answer(target, prompt, 12)
