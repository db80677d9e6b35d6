"""What is installed: the hosts' versions and the patches that entry points register."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from . import HOSTS
from .patch import GROUP, Patch, distribution_of

if sys.version_info >= (3, 12):
    from importlib import metadata
else:
    import importlib_metadata as metadata

# what a row of the matrix may name in its conditions
DISTRIBUTIONS = ("mlx", "mlx-lm", "mlx-vlm", "vllm-mlx", "transformers")
_OURS = "mlx_gemma4_patches.patches."


class Host(NamedTuple):
    """The package of a host: ``owner`` is the distribution it is of, if that is not the host's."""

    version: Version | None
    owner: str | None


def registered(
    host: str | None = None,
    problem: Callable[[str], None] = lambda text: None,
    third_party: bool = True,
) -> list[metadata.EntryPoint]:
    """The entry points of all patches, or of one host's, by name.

    Of two with one name ours counts, or else the first; ``problem`` is told of the other.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for entry_point in sorted(metadata.entry_points(group=GROUP), key=lambda e: not is_ours(e)):
        if host is not None and entry_point.name.partition(".")[0] != host:
            continue
        if not (third_party or is_ours(entry_point)):
            continue
        first = found.setdefault(entry_point.name, entry_point)
        if first.value != entry_point.value:
            problem(
                f"the patch {entry_point.value} is left out: its name, {entry_point.name}, is that "
                f"of {first.value}"
            )
    return [found[name] for name in sorted(found)]


def is_ours(entry_point: metadata.EntryPoint) -> bool:
    """Whether a patch ships in this package."""
    return entry_point.value.startswith(_OURS)


def load(entry_point: metadata.EntryPoint) -> Patch:
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
    """Versions of the distributions that are installed; None where a version is not to be had.

    A host whose package is there without its distribution, as in a fork, is of unknown version.
    """
    packages = {distribution_of(host): host for host in HOSTS}
    found: dict[str, Version | None] = {}
    for name in names:
        try:
            found[name] = _version(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            if name in packages and PathFinder.find_spec(packages[name]):
                found[name] = None
    return found


def look_up_host(host: str, folder: str | None) -> Host:
    """Which release the package in ``folder`` is, and whose, if not that of the host's own.

    A package that no distribution has, such as a checkout on ``PYTHONPATH``, is of unknown version.
    """
    name = distribution_of(host)
    try:
        own = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        own = None
    if own and (folder is None or _is_at(own, host, folder)):
        return Host(_version(own), None)
    owners = sorted(
        {canonicalize_name(owner) for owner in metadata.packages_distributions().get(host, ())}
    )
    if not owners or name in owners:
        return Host(None, None)
    return Host(None, f"{owners[0]} {_version(metadata.distribution(owners[0])) or ''}".strip())


def _is_at(own: Any, host: str, folder: str) -> bool:
    if os.path.realpath(str(own.locate_file(host))) == os.path.realpath(folder):
        return True
    try:  # `pip install -e` leaves the package where it is
        origin = json.loads(own.read_text("direct_url.json") or "{}")
        return origin["dir_info"]["editable"] is True
    except (ValueError, KeyError, TypeError):
        return False


def _version(found: Any) -> Version | None:
    try:
        return Version(found.version)
    except (InvalidVersion, KeyError, TypeError):
        return None
