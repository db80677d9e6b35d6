"""The environments of tests/activation."""

from tests.activation.conftest import bare, demo, installed, make_environment, wheel

__all__ = ["bare", "demo", "installed", "make_environment", "wheel"]
