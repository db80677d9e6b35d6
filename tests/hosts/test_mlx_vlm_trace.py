"""mlx-vlm computes what transformers does, of texts, images and sounds; its faults have a place."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches import trace
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from mlx_gemma4_patches.trace import cases
from tests.hosts.contract import skip_unless_needed

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


@pytest.fixture(scope="module")
def rows():
    found = trace.run(lambda text: None, ["mlx_vlm"], cases.of_host("mlx_vlm"), ["float32"])
    return {(row["shape"], row["way"]): row for row in found}


def test_every_tensor_is_within_its_limit(rows):
    text = tiny.model("e2b").language_model
    if len(text.make_cache()) == len(text.layers):
        del rows["e2b", "chunked"]  # mlx-vlm 0.4.3 cannot prefill E2B in parts
    for name, row in rows.items():
        assert trace.verdict.is_right(row["patched"]), (name, trace.verdict.words(row["patched"]))


@pytest.mark.parametrize("shape", ["moe", "dense"])
def test_the_fault_of_images_shows_where_it_is(rows, shape):
    skip_unless_needed("mlx_vlm.vision_mask")
    tensors = rows[shape, "image"]["stock"]["tensors"]
    first = trace.verdict.first_beyond(tensors)
    # 0.4.x makes nonsense of an image's features already
    assert first in ("layer 0 attention", "image features")
    image = range(7, 7 + cases.IMAGE[0] * cases.IMAGE[1])
    assert first == "image features" or tensors[first]["position"] in image


def test_where_transformers_disagrees_with_itself_is_said(rows):
    seen = rows["12b", "image"]["patched"]
    if "tensors" not in seen:
        pytest.skip(seen["not_applicable"])
    assert "transformers 5.24.0 disagrees with itself, from layer 0 attention on" in seen["note"]
