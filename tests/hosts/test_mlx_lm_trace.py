"""mlx-lm computes what transformers does, tensor by tensor, however it is given a text."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches import trace
from mlx_gemma4_patches.trace import cases

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_every_tensor_is_within_its_limit():
    said = []
    rows = list(trace.run(said.append, ["mlx_lm"], cases.of_host("mlx_lm"), ["float32"]))
    assert len(rows) == 12 and len(said) == 24
    for row in rows:
        seen = row["patched"]
        assert trace.verdict.is_right(seen), (row["shape"], row["way"], trace.verdict.words(seen))
        assert {"embeddings", "layer 5", "final norm", "logits"} <= seen["tensors"].keys()
