"""mlx-vlm's real server hears, sees, and refuses what it cannot."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.hosts import hearing, media_door
from tests.hosts.server import serve

pytest.importorskip("mlx_vlm")
if Version(version("mlx-vlm")) < Version("0.6.5"):
    pytest.skip("the server of this mlx-vlm takes no sounds, or no 400", allow_module_level=True)


def test_media_of_every_kind(tmp_path) -> None:
    folder = hearing.save(tmp_path)
    with serve("mlx_vlm", folder) as server:
        media_door.check(server, folder)
