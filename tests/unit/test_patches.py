"""Patches lie where their names say: one file, one fault, and nothing else beside them."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mlx_gemma4_patches import HOSTS, patches
from mlx_gemma4_patches.patch import GROUP

FOLDER = Path(patches.__file__).parent
IDS = sorted(
    ".".join(file.relative_to(FOLDER).with_suffix("").parts)
    for file in FOLDER.rglob("*.py")
    if file.name != "__init__.py"
)


@pytest.mark.parametrize("patch_id", IDS)
def test_every_module_is_the_patch_of_its_name(patch_id):
    pytest.importorskip("mlx.core")
    host, _, fault = patch_id.partition(".")
    assert host in HOSTS and "." not in fault
    assert import_module(f"{patches.__name__}.{patch_id}").PATCH.id == patch_id


def test_every_module_is_registered_and_nothing_else_of_ours():
    ours = [e.name for e in entry_points(group=GROUP) if e.value.startswith(patches.__name__)]
    assert sorted(ours) == IDS


@pytest.mark.parametrize("patch_id", IDS)
def test_no_module_imports_another_patch(patch_id):
    """One that fails at its import takes no other along; what two share lies in hosts/."""
    file = FOLDER.joinpath(*patch_id.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level in (0, 3), f"from {'.' * node.level}{node.module or ''}"
