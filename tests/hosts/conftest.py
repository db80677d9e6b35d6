"""Tests of behaviour against really installed hosts, whatever their releases are."""

from __future__ import annotations

import pytest

import mlx_gemma4_patches

mlx_gemma4_patches.activate()  # before any test module imports a host


@pytest.fixture
def no_metal_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts define kernels that only Metal runs for as long as the test lasts."""
    import mlx.core as mx

    from tests.hosts import metal

    monkeypatch.setattr(mx.fast, "metal_kernel", mx.fast.metal_kernel)  # to be put back
    metal.stand_in()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    subject = config.getoption("--subject")
    if subject is None:
        return
    others = tuple(host for host in mlx_gemma4_patches.HOSTS if host != subject)
    left_out = [item for item in items if _is_about(item, others) and subject not in item.path.name]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_about(item: pytest.Item, hosts: tuple[str, ...]) -> bool:
    """Whether the file of a test, or what it is asked with, names one of ``hosts`` first."""
    asked = getattr(item, "callspec", None)
    named = [item.path.name.removeprefix("test_"), *(asked.params.values() if asked else ())]
    return any(isinstance(name, str) and name.startswith(hosts) for name in named)
