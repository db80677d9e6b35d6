"""What a patch is: the remedy of one fault of one host, and the probe that shows the fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .surgery import Surgery

GROUP = "mlx_gemma4_patches.patches"


class State(str, Enum):
    """Where a patch stands in this process."""

    APPLIED = "applied"
    UNVERIFIED = "unverified"  # applied on the version alone: the host ships no source to verify
    PENDING = "pending"  # waits for a target's module to be imported
    NOT_NEEDED = "not_needed"
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"  # left off: not the code it was written for
    DISABLED = "disabled"  # by a setting, or opt-in and not asked for
    OVERWRITTEN = "overwritten"  # was applied, and somebody has replaced it since
    FAILED = "failed"  # its own code raised

    @property
    def is_on(self) -> bool:
        return self in (State.APPLIED, State.UNVERIFIED)


class Finding(NamedTuple):
    """What a probe saw: whether the fault is there, and the number or words that show it."""

    faulty: bool
    measured: str


class NotApplicable(Exception):
    """Raised by a probe that has nothing to check on this installation; the message says why."""


@dataclass(frozen=True)
class Patch:
    """One fault's remedy.

    Args:
        id: ``host.fault``; also the entry point's name and the row's name in the matrix.
        targets: every place, over all releases of the host, whose source decides whether the
            patch fits: ``module:function``, ``module:Class`` or ``module:Class.attribute``.
            With brackets behind it, ``module:function(first, *, named)``, only the parameters
            in them decide: for a wrapper that surrounds the function whatever its body, and
            changes nothing where nothing is wrong. A release may lack some of them.
        apply: changes the host through the given ``Surgery``; all its changes stand or fall
            together.
        probe: a behavioural check in well under a second on tiny random objects. Raises
            ``NotApplicable`` where there is nothing to check.
        row: the matrix row, for patches that do not ship in this package.
    """

    id: str
    targets: tuple[str, ...]
    apply: Callable[[Surgery], None]
    probe: Callable[[], Finding]
    row: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        host, _, fault = self.id.partition(".")
        if not host or not fault:
            raise ValueError(f"patch id {self.id!r} is not of the form host.fault")
        for target in self.targets:
            module, _, path = target.partition(":")
            if not module or not path:
                raise ValueError(f"{self.id}: target {target!r} is not of the form module:path")

    @property
    def host(self) -> str:
        return self.id.partition(".")[0]


def distribution_of(host: str) -> str:
    """The name under which a host's package is published."""
    return host.replace("_", "-")
