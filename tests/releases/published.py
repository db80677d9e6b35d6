"""What the package index has, asked through pip, and what is new in it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping

from packaging.version import InvalidVersion, Version

HOSTS = ("mlx-lm", "mlx-vlm", "vllm-mlx")  # later ones stand on earlier ones


def versions(name: str) -> list[str]:
    """The published releases of a distribution that this Python can install, oldest first.

    Raises:
        RuntimeError: pip cannot say; the message has its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", name], capture_output=True, text=True
    )
    found = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"pip cannot say which releases of {name} there are: {last}")
    return in_order(found[1].split(", "))


def in_order(texts: Iterable[str]) -> list[str]:
    """Final releases, oldest first; what is no version is left out."""
    found = {}
    for text in texts:
        try:
            version = Version(text.strip())
        except InvalidVersion:
            continue
        if not version.is_prerelease:
            found[version] = text.strip()
    return [found[version] for version in sorted(found)]


def new(known: Iterable[str], published: Iterable[str]) -> list[str]:
    """Those published since the newest that is known."""
    newest = max(map(Version, known))
    return [release for release in published if Version(release) > newest]


def add(data: dict, fresh: Mapping[str, list[str]]) -> list[str]:
    """Put new releases and their combinations into the matrix; returns the combinations' names.

    Each is combined with the newest of what it stands on, and the newest of what stands on it is
    combined with the newest of all.
    """
    for name, releases in fresh.items():
        data["releases"][name] += releases
    newest = {name: data["releases"][name][-1] for name in HOSTS}
    added = []
    for place, name in enumerate(HOSTS):
        beneath = HOSTS[:place][::-1]
        releases = list(fresh.get(name, ()))
        if not releases and any(fresh.get(other) for other in beneath):
            releases = [newest[name]]
        for release in releases:
            parts = {name: release, **{other: newest[other] for other in beneath}}
            title = " + ".join(f"{n} {r}" for n, r in parts.items())
            if title not in data["combinations"]:
                data["combinations"][title] = {"base": "new", **parts}
                added.append(title)
    return added


def without(data: dict, release: str) -> None:
    """Forget a release of a host and all later ones, as if they had not been measured yet.

    Raises:
        ValueError: the matrix has no such release.
    """
    name, _, first = release.partition(" ")
    if first not in data["releases"].get(name, ()):
        raise ValueError(f"the matrix has no release {release!r}; write it as in 'mlx-vlm 0.7.10'")

    def is_earlier(text: str) -> bool:
        return Version(text) < Version(first)

    data["releases"][name] = [*filter(is_earlier, data["releases"][name])]
    data["combinations"] = {
        title: parts
        for title, parts in data["combinations"].items()
        if name not in parts or is_earlier(parts[name])
    }
    for patch_id, row in data["patches"].items():
        if patch_id.startswith(f"{name.replace('-', '_')}."):
            code = [{**p, "releases": [*filter(is_earlier, p["releases"])]} for p in row["code"]]
            row["code"] = [part for part in code if part["releases"]]
    for evidence in data["evidence"].values():
        for outcome in set(evidence) - {"measured"}:
            left = [title for title in evidence[outcome] if title in data["combinations"]]
            evidence[outcome] = left
