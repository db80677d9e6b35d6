"""Our wheel, built once, and the environments it is installed into."""

from __future__ import annotations

import importlib.metadata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.activation.environment")

from .environment import PATCHES, Environment, build_patch_package, build_wheel, write  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a third party's patch for the fake mlx_lm."""
    return build_patch_package("demo", PATCHES, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def make_environment(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Environment]:
    """Makes an environment that lacks our package."""
    (info,) = (part for part in zipfile.Path(wheel).iterdir() if part.name.endswith(".dist-info"))
    package = importlib.metadata.PathDistribution(info)
    return lambda: Environment(tmp_path_factory.mktemp("environment"), package)


@pytest.fixture(scope="session")
def bare(make_environment: Callable[[], Environment]) -> Environment:
    """Without our package; tests leave it as it is."""
    environment = make_environment()
    # any path file makes Python 3.13 import a codec
    write(environment.site / "comment.pth", "# nothing\n")
    return environment


@pytest.fixture(scope="session")
def installed(make_environment: Callable[[], Environment], wheel: Path, demo: Path) -> Environment:
    """With our wheel and the demo; tests leave it as it is."""
    environment = make_environment()
    environment.install(wheel, demo)
    return environment


@pytest.fixture(scope="session")
def editable(make_environment: Callable[[], Environment], demo: Path) -> Environment:
    """With this checkout by ``pip install -e``, and the demo; tests leave it as it is."""
    environment = make_environment()
    environment.link(["hatchling"])
    environment.install("--no-build-isolation", "-e", ROOT)
    environment.install(demo)
    return environment
