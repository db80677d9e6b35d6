"""A prompt of which nothing is known costs what it costs without prefix reuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.hosts import reuse
from tests.hosts.contract import skip_unless_needed

OPENING = 8  # tokens that open every chat, which mlx-lm finds in a conversation within the window


@pytest.mark.parametrize("name", ["mlx_lm", "mlx_vlm", "vllm_mlx mllm batched"])
def test_no_step_more_and_no_token_more(name, tmp_path: Path) -> None:
    route = reuse.ROUTES[name]
    pytest.importorskip(route.host)
    patch_id = f"{route.host}.prefix_reuse"
    skip_unless_needed(patch_id)
    environ = (*route.environ, ("MLX_GEMMA4_PATCHES_DISABLE", patch_id))
    without = dataclasses.replace(route, environ=environ)
    steps = reuse.cold(tmp_path / "without" / "gemma-4-tiny", without)
    for prompt, found in reuse.cold(tmp_path / "with" / "gemma-4-tiny", route).items():
        assert len(found) <= len(steps[prompt]), prompt
        assert 0 < sum(found) <= sum(steps[prompt]) + OPENING, prompt
