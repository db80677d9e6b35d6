"""Activation on the mlx-lm that is really installed, whatever its release is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from .conftest import ROOT
from .environment import clean_environ

PROGRAM = """
import json, mlx_gemma4_patches
mlx_gemma4_patches.activate()
import mlx_lm.generate, mlx_lm.server
print(json.dumps(mlx_gemma4_patches.status()))
"""


@pytest.mark.skipif(importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is not installed")
def test_mlx_lm_is_seen_and_no_patch_fails():
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean_environ(), "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    assert status["active"]
    assert status["hosts"]["mlx_lm"] == importlib.metadata.version("mlx-lm")
    assert [patch for patch in status["patches"] if patch["state"] == "failed"] == []
