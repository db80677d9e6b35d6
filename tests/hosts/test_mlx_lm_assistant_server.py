"""mlx-lm's real server with an assistant: transformers' text, streams and conversations too."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import tiny_assistant
from tests.hosts import batching, texts
from tests.hosts.contract import skip_unless_needed
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_every_answer_is_that_of_transformers(tmp_path: Path) -> None:
    skip_unless_needed("mlx_lm.assistant")
    folder = batching.save("dense", tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    assistant = tiny_assistant.save("dense", tmp_path / "assistant")
    options = ("--draft-model", str(assistant), "--num-draft-tokens", "3")
    with serve("mlx_lm", folder, *options) as server:
        texts.check(server, "dense", folder)
