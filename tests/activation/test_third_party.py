"""Patches that other packages register. That a sound one is applied, test_activation shows."""

from __future__ import annotations

import json

import pytest

from .environment import PATCHES, SHOW, build_patch_package
from .test_activation import STATUS

FAULTS = {  # by name: the module, and the words that report it
    "broken_apply": (  # comes before the demo, which has the same target
        PATCHES.replace("demo", "broken_apply").replace(
            "surgery.wrap(TARGET, make)", "surgery.wrap(TARGET, make); raise RuntimeError('no')"
        ),
        "RuntimeError: no",
    ),
    "broken_load": ("raise RuntimeError('no')", "RuntimeError: no"),
    "leaves": ("raise SystemExit('no')", "SystemExit: no"),
    "leaves_in_apply": (
        PATCHES.replace("demo", "leaves_in_apply").replace(
            "surgery.wrap(TARGET, make)", "raise SystemExit('no')"
        ),
        "SystemExit: no",
    ),
    "imports_host": (
        "import mlx_lm.fake",
        "ImportError: mlx_lm is imported by a patch that mlx_lm waits for",
    ),
}


@pytest.fixture(scope="module", params=FAULTS)
def fault(request):
    return request.param


@pytest.fixture(scope="module")
def environment(make_environment, wheel, demo, fault, tmp_path_factory):
    """With our wheel, the demo, and a package whose patch is at fault."""
    made = make_environment()
    folder = tmp_path_factory.mktemp(fault)
    made.install(wheel, demo, build_patch_package(fault, FAULTS[fault][0], folder))
    return made


def test_a_patch_that_raises_is_reported_in_one_line_and_skipped(environment, fault):
    done = environment.process("-c", f"{SHOW}; {STATUS}")
    shown, status = done.stdout.strip().split("\n")
    assert shown == "patched"  # by the demo
    states = {patch["id"]: patch for patch in json.loads(status)["patches"]}
    assert states[f"mlx_lm.{fault}"]["state"] == "failed"
    assert states["mlx_lm.demo"]["state"] == "applied"
    (line,) = done.stderr.splitlines()
    assert f"mlx_lm.{fault}" in line
    assert FAULTS[fault][1] in line


def test_strict_makes_it_an_import_error(environment, fault):
    done = environment.process("-c", SHOW, MLX_GEMMA4_PATCHES_STRICT="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: mlx-gemma4-patches: ")


def test_a_patch_does_not_take_the_place_of_one_of_ours(make_environment, wheel, tmp_path):
    made = make_environment()
    theirs = PATCHES.replace("mlx_lm.demo", "mlx_lm.kv_bits")
    made.install(wheel, build_patch_package("kv_bits", theirs, tmp_path))
    done = made.process("-c", f"{SHOW}; {STATUS}")
    shown, status = done.stdout.strip().split("\n")
    assert shown == "stock"
    (problem,) = json.loads(status)["problems"]
    assert "gemma4_kv_bits:PATCH is left out" in problem
    assert done.stderr == f"mlx-gemma4-patches: {problem}\n"


def test_one_switch_leaves_out_all_patches_of_other_packages(installed):
    assert installed.run(SHOW) == "patched"
    assert installed.run(SHOW, MLX_GEMMA4_PATCHES_THIRD_PARTY="0") == "stock"
