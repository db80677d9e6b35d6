"""mlx-lm computes what transformers does, tensor by tensor: texts in every way, images, drafts."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.version import Version

from mlx_gemma4_patches import trace
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.trace import cases
from tests.hosts import machines, sharded

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_every_tensor_is_within_its_limit():
    said, wanted = [], cases.of_host("mlx_lm")
    if find_spec("mlx_vlm") is None:  # it has the towers
        wanted = [case for case in wanted if case.way != "image"]
    rows = list(trace.run(said.append, ["mlx_lm"], wanted, ["float32"]))
    assert len(rows) == len(wanted) and len(said) == 2 * len(wanted)
    for row in rows:
        seen = row["patched"]
        if row["way"] == "drafts" and Version(version("mlx-lm")) < Version("0.31.3"):
            assert "not_applicable" in seen  # no assistants there, patched or not
            continue
        assert trace.verdict.is_right(seen), (row["shape"], row["way"], trace.verdict.words(seen))
        end = {"layer 3", "next hidden"} if row["way"] == "drafts" else {"layer 5", "logits"}
        assert {"embeddings", "final norm", *end} <= seen["tensors"].keys()


@pytest.mark.parametrize(("shape", "way"), [("e2b", "divided"), ("moe", "pipeline")])
def test_so_is_every_tensor_of_two_processes(shape: str, way: str, tmp_path: Path):
    pytest.importorskip("mlx_vlm", reason="it has the towers")
    folder = machines.save(shape, "float32", tmp_path)
    done = sharded.launch(folder, 2, "--trace", *machines.WAYS[way])
    ranks = sorted(tmp_path.glob("out.safetensors.*.json"))
    assert len(ranks) == 2, done.stdout + done.stderr
    traced = [json.loads(file.read_text()) for file in ranks]
    layers = [f"layer {i}" for i in range(len(tiny.config(shape)["text_config"]["layer_types"]))]
    for reading in traced[0]:
        for of_rank in traced:
            assert trace.verdict.is_right(of_rank[reading]), (reading, of_rank[reading])
        seen = {name for of_rank in traced for name in of_rank[reading]["tensors"]}
        assert {"embeddings", *layers, "final norm", "logits"} <= seen
    assert list(traced[0]) == [case.way for case in sharded.traceable(shape)]
