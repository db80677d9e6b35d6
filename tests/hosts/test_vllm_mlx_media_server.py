"""vllm-mlx's real server hears, sees, and refuses what it cannot."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.hosts import hearing, media_door
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")
if Version(version("vllm-mlx")) < Version("0.6"):
    pytest.skip("the parts of a request are tested without a server", allow_module_level=True)


@pytest.mark.parametrize("arguments", [[], ["--continuous-batching"]], ids=["alone", "batches"])
def test_media_of_every_kind(tmp_path, arguments: list[str]) -> None:
    folder = tmp_path / "gemma-4-tiny"  # the host knows a Gemma 4 by its name too
    folder.mkdir()
    hearing.save(folder)
    with serve("vllm_mlx", folder, "--mllm", *arguments) as server:
        media_door.check(server, folder)
