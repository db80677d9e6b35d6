"""mlx-lm computes what transformers does, tensor by tensor, of texts in every way and of images."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from mlx_gemma4_patches import trace
from mlx_gemma4_patches.trace import cases

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_every_tensor_is_within_its_limit():
    said, wanted = [], cases.of_host("mlx_lm")
    if find_spec("mlx_vlm") is None:  # it has the towers
        wanted = [case for case in wanted if case.way != "image"]
    rows = list(trace.run(said.append, ["mlx_lm"], wanted, ["float32"]))
    assert len(rows) == len(wanted) and len(said) == 2 * len(wanted)
    for row in rows:
        seen = row["patched"]
        assert trace.verdict.is_right(seen), (row["shape"], row["way"], trace.verdict.words(seen))
        assert {"embeddings", "layer 5", "final norm", "logits"} <= seen["tensors"].keys()
