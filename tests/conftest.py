"""Options of the whole test suite."""

from __future__ import annotations

import hypothesis
import pytest

from mlx_gemma4_patches import HOSTS

# a busy machine is no failure
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--subject",
        choices=sorted(HOSTS),
        help="of tests/hosts, leave out the files that are about another host",
    )
