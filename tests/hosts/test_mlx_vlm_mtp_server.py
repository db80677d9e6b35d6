"""mlx-vlm's real server with a drafter: transformers' text, one by one and in batches."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import tiny_assistant
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import generating
from tests.hosts import batching, texts
from tests.hosts.contract import skip_unless_needed
from tests.hosts.server import serve

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def test_every_answer_is_that_of_transformers(tmp_path: Path) -> None:
    skip_unless_needed("mlx_vlm.mtp_kv_bits")  # where there are drafters
    folder = batching.save("dense", tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    assistant = str(tiny_assistant.save("dense", tmp_path / "assistant"))
    options = ("--draft-model", assistant, "--draft-kind", "mtp")
    # the server of 0.5.0 has a loop of its own, whose rows still accept unequally
    known = inspect.signature(generating().BatchGenerator.__init__).parameters
    with serve("mlx_vlm", folder, *options) as server:
        texts.check(server, "dense", folder, at_once="draft_model" in known)
