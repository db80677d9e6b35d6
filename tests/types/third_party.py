"""A package with a patch of its own, as a type checker sees it: ``mypy --strict`` reads this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_gemma4_patches import activate, status
from mlx_gemma4_patches.patch import Finding, NotApplicable, Patch
from mlx_gemma4_patches.surgery import Surgery

TARGET = "mlx_lm.models.cache:KVCache.size"


def probe() -> Finding:
    if not TARGET:
        raise NotApplicable("there is nothing to check")
    finding = Finding(faulty=False, measured="a size")
    measured: str = finding.measured
    return Finding(bool(measured), measured)


def apply(surgery: Surgery) -> None:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        return original

    targets: tuple[str, ...] = surgery.targets
    for target in targets:
        surgery.wrap(target, make)
    surgery.add("mlx_lm.models.cache:KVCache.more", 1)
    left: list[str] = surgery.undo()
    assert not left


PATCH = Patch(id="mlx_lm.size", targets=(TARGET,), apply=apply, probe=probe, row={"title": "size"})

activate()
found: dict[str, Any] = status()
host: str = PATCH.host
