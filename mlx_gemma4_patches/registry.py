"""What is installed: the hosts' versions and the patches that entry points register."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from packaging.version import InvalidVersion, Version

from .patch import GROUP, Patch

if sys.version_info >= (3, 12):
    from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
else:
    from importlib_metadata import EntryPoint, PackageNotFoundError, entry_points, version

# what a row of the matrix may name in its conditions
DISTRIBUTIONS = ("mlx", "mlx-lm", "mlx-vlm", "vllm-mlx", "transformers")


def registered(
    host: str | None = None, problem: Callable[[str], None] = lambda text: None
) -> list[EntryPoint]:
    """The entry points of all patches, or of one host's, by name; the first of a name counts.

    ``problem`` is told of a name that two distributions give different objects.
    """
    found: dict[str, EntryPoint] = {}
    for entry_point in entry_points(group=GROUP):
        if host is not None and entry_point.name.partition(".")[0] != host:
            continue
        first = found.setdefault(entry_point.name, entry_point)
        if first.value != entry_point.value:
            problem(
                f"{entry_point.name} is registered twice, by {first.value} and by "
                f"{entry_point.value}; the first counts"
            )
    return [found[name] for name in sorted(found)]


def load(entry_point: EntryPoint) -> Patch:
    """The patch of an entry point.

    Raises:
        TypeError: it gives something else.
        ValueError: it gives a patch of another id.
        Exception: whatever its module raises.
    """
    patch = entry_point.load()
    if not isinstance(patch, Patch):
        raise TypeError(f"the entry point gives a {type(patch).__name__}, not a Patch")
    if patch.id != entry_point.name:
        raise ValueError(f"the entry point gives the patch {patch.id!r}")
    return patch


def installed_versions(names: Iterable[str] = DISTRIBUTIONS) -> dict[str, Version | None]:
    """Versions of the distributions that are installed; None where there is no valid version."""
    found: dict[str, Version | None] = {}
    for name in names:
        try:
            found[name] = Version(version(name))
        except PackageNotFoundError:
            continue
        except (InvalidVersion, TypeError):
            found[name] = None
    return found
