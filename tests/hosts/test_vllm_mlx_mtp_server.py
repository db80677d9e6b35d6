"""vllm-mlx's real server with a drafter: transformers' text, one by one and in batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import tiny_assistant
from tests.hosts import batching, texts
from tests.hosts.contract import skip_unless_needed
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")


def test_every_answer_is_that_of_transformers(tmp_path: Path) -> None:
    skip_unless_needed("vllm_mlx.mtp_rollback")
    folder = batching.save("dense", tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    assistant = str(tiny_assistant.save("dense", tmp_path / "assistant"))
    options = ("--mllm-draft-model", assistant, "--mllm-draft-kind", "mtp", "--default-mllm-draft")
    with serve("vllm_mlx", folder, "--mllm", "--continuous-batching", *options) as server:
        texts.check(server, "dense", folder)
