"""What an installation puts in place, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest

from .conftest import ROOT
from .environment import SHOW, build_wheel
from .test_activation import STATUS


def test_the_wheel_carries_the_start_up_files_at_its_root_and_only_there(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for suffix in ("pth", "start"):
            name = f"mlx_gemma4_patches_activate.{suffix}"
            assert [path for path in names if path.endswith(name)] == [name]
        assert "mlx_gemma4_patches/compat_matrix.yaml" in names
        assert "mlx_gemma4_patches/py.typed" in names
        assert "mlx_gemma4_patches/doctor/greedy.json" in names
        assert not [path for path in names if path.startswith("tests/")]


def test_whoever_builds_the_wheel_gets_the_same_bytes(wheel, tmp_path):
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".*", "tests", "__pycache__", "dist", "build")
    shutil.copytree(ROOT, checkout, ignore=ignored, copy_function=shutil.copyfile)  # new times
    for file in checkout.rglob("*.py"):
        file.chmod(0o600)
    again = build_wheel(checkout, tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


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


@pytest.fixture
def damaged(make_environment, wheel, demo):
    """An environment of its own, with our wheel and the demo, to be damaged."""
    environment = make_environment()
    environment.install(wheel, demo)
    return environment


@pytest.mark.parametrize("damage", ["missing", "empty", "no dist-info"])
def test_without_our_entry_points_one_line_and_a_problem_say_so(damaged, damage):
    (folder,) = damaged.site.glob("mlx_gemma4_patches-*.dist-info")
    (folder / "entry_points.txt").unlink()
    if damage == "empty":
        (folder / "entry_points.txt").touch()
    elif damage == "no dist-info":
        shutil.rmtree(folder)
    done = damaged.process("-c", f"{SHOW}; {STATUS}")
    shown, status = done.stdout.strip().split("\n")
    assert shown == "patched"  # another package's demo
    (problem,) = json.loads(status)["problems"]
    assert "entry_points.txt" in problem
    assert done.stderr == f"mlx-gemma4-patches: {problem}\n"


def test_a_cut_matrix_is_one_line_and_no_patch(damaged):
    file = damaged.site / "mlx_gemma4_patches" / "compat_matrix.yaml"
    text = file.read_text()
    file.write_text(text[: len(text) // 20])
    done = damaged.process("-c", SHOW)
    assert done.stdout == "stock\n"
    (line,) = done.stderr.splitlines()
    assert "no patch is applied: " in line
    assert "cut off" in line or "no valid YAML" in line


def test_of_a_host_that_does_not_say_its_version_the_code_decides(damaged):
    (file,) = damaged.site.glob("mlx_lm-*.dist-info/METADATA")
    file.write_text("Name: mlx-lm\n")
    shown, status = damaged.run(f"{SHOW}; {STATUS}").split("\n")
    assert shown == "patched"
    assert json.loads(status)["hosts"] == {"mlx_lm": "unknown"}


def test_a_host_that_is_of_another_package_is_told_apart(damaged):
    (folder,) = damaged.site.glob("mlx_lm-*.dist-info")
    (folder / "METADATA").write_text("Name: other-lm\nVersion: 3.0\n")
    (folder / "top_level.txt").write_text("mlx_lm\n")
    folder.rename(folder.with_name("other_lm-3.0.dist-info"))
    shown, status = damaged.run(f"{SHOW}; {STATUS}").split("\n")
    assert shown == "patched"  # its code is the same
    assert json.loads(status)["owners"] == {"mlx_lm": "other-lm 3.0"}


@pytest.mark.parametrize("word", ["off", "false", "no"])
def test_the_usual_words_switch_it_off(installed, word):
    assert installed.run(SHOW, MLX_GEMMA4_PATCHES=word) == "stock"


def test_another_word_is_named_in_one_line_and_changes_nothing(installed):
    done = installed.process("-c", SHOW, MLX_GEMMA4_PATCHES="maybe")
    assert done.stdout == "patched\n"
    (line,) = done.stderr.splitlines()
    assert "MLX_GEMMA4_PATCHES='maybe'" in line
