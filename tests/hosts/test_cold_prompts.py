"""A prompt of which nothing is known costs what it costs without the patches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.hosts import reuse


@pytest.mark.parametrize("name", ["mlx_lm", "mlx_lm alone", "mlx_vlm", "vllm_mlx mllm batched"])
def test_no_step_more_and_no_token_more(name, tmp_path: Path) -> None:
    route = reuse.ROUTES[name]
    if importlib.util.find_spec(route.host) is None:
        pytest.skip(f"{route.host} is not installed")
    patched, stock = (
        reuse.cold(tmp_path / str(off) / "gemma-4-tiny", route, stock=off) for off in (False, True)
    )
    assert patched == stock
    assert all(steps for steps in stock.values())
