"""mlx-lm's real server: transformers' text, one by one and in batches."""

from __future__ import annotations

import pytest

from tests.hosts import batching, texts
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_every_answer_is_that_of_transformers(shape, tmp_path) -> None:
    folder = batching.save(shape, tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    with serve("mlx_lm", folder) as server:
        texts.check(server, shape, folder)
