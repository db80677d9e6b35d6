"""The audit of the hosts that are installed agrees with their sources and with their caches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mlx_gemma4_patches import HOSTS
from mlx_gemma4_patches.audit import audit
from tests.hosts.contract import skip_unless_needed, stock


@pytest.mark.parametrize("host", sorted(HOSTS))
def test_every_model_is_read_and_every_place_is_one(host):
    spec = importlib.util.find_spec(host)
    if spec is None:
        pytest.skip(f"{host} is not installed")
    result = audit(host)
    assert result["files"] >= 5 and result["unread"] == []
    for place in result["findings"]:
        text = Path(spec.submodule_search_locations[0], place["file"]).read_text()
        lines = text.splitlines()
        assert place["kind"] in lines[place["line"] - 1]
        assert place["harmful"] is (place["kind"] == "state"), place  # offsets are copies


@pytest.mark.parametrize("host", ["mlx_lm", "mlx_vlm"])
def test_without_the_patch_an_offset_is_harmful(host):
    pytest.importorskip(host)
    skip_unless_needed(f"{host}.cache_offset")
    with stock(f"{host}.cache_offset"):
        places = [place for place in audit(host)["findings"] if place["kind"] == "offset"]
    assert all(place["harmful"] for place in places)
