"""Options of the whole test suite."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches import HOSTS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--subject",
        choices=sorted(HOSTS),
        help="of tests/hosts, leave out the files that are about another host",
    )
