"""The rotation of mlx-vlm 0.4.3; test_mlx_vlm_parity.py compares its text with transformers."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_vlm")


class TestRopeProportional(PatchContract):
    id = "mlx_vlm.rope_proportional"

    def untouched(self):
        from mlx_vlm.models.gemma4.config import TextConfig
        from mlx_vlm.models.gemma4.language import Attention

        # a sliding-window layer, which rotates as any other model does
        config = TextConfig.from_dict({"layer_types": ["sliding_attention"], "head_dim": 32})
        return Attention(config, 0).rope(mx.ones((1, 1, 3, 32)), offset=7)


def test_each_row_of_a_batch_is_rotated_by_its_own_offset() -> None:
    from mlx_gemma4_patches.hosts.mlx_vlm import tiny

    rope = tiny.model("dense").language_model.model.layers[2].self_attn.rope
    x = mx.random.normal((2, 1, 3, 64), key=mx.random.key(0))
    together = rope(x, offset=mx.array([5, 90]))
    alone = [rope(x[row : row + 1], offset=offset) for row, offset in enumerate((5, 90))]
    assert mx.allclose(together, mx.concatenate(alone), atol=1e-5)
