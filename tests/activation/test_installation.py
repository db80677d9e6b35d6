"""What an installation puts in place, and what it leaves behind."""

from __future__ import annotations

import zipfile

import pytest

from .conftest import ROOT
from .environment import SHOW


def test_the_wheel_carries_the_start_up_files_at_its_root_and_only_there(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for suffix in ("pth", "start"):
            name = f"mlx_gemma4_patches_activate.{suffix}"
            assert [path for path in names if path.endswith(name)] == [name]
        assert "mlx_gemma4_patches/compat_matrix.yaml" in names
        assert not [path for path in names if path.startswith("tests/")]


def test_the_start_up_file_is_read_after_those_of_editable_installs(editable):
    paths = sorted(path.name for path in editable.site.glob("*.pth"))
    assert paths == ["_mlx_gemma4_patches.pth", "mlx_gemma4_patches_activate.pth"]


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_uninstalling_leaves_nothing(make_environment, wheel, how):
    environment = make_environment()
    environment.link(["hatchling"])
    before = environment.files()
    if how == "wheel":
        environment.install(wheel)
    else:
        environment.install("--no-build-isolation", "-e", ROOT)
    assert environment.files() != before
    environment.uninstall("mlx-gemma4-patches")
    assert environment.files() == before
    assert environment.run(f"{SHOW}; import sys; print('mlx_gemma4_patches' in sys.modules)") == (
        "stock\nFalse"
    )
