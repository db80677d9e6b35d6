"""Options of the whole test suite."""

from __future__ import annotations

import os

import hypothesis
import pytest

from mlx_gemma4_patches import HOSTS, matrix
from mlx_gemma4_patches.settings import PREFIX

# before anything imports a host: opt-in patches are tested like the others
_OPT_IN = [row.id for row in matrix.load().rows.values() if row.opt_in]
os.environ[f"{PREFIX}_ENABLE"] = ",".join(_OPT_IN)

# a busy machine is no failure
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(  # --hypothesis-profile=fuzz
    "fuzz",
    parent=hypothesis.settings.get_profile("busy"),
    max_examples=100_000,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--subject",
        choices=sorted(HOSTS),
        help="of tests/hosts, leave out the files that are about another host",
    )
