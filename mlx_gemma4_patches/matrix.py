"""``compat_matrix.yaml``: which fault is in which release, with fingerprints and evidence.

Everything the engine knows about releases comes from this file. It is validated when it is read,
so that a broken file gives one clear error instead of a wrong plan. It is a stream of YAML
documents, because a host's import waits for it: what all share, one for each host's patches, and
the evidence, which no host needs. Each has an ``end`` last, so that a cut shows.
The keys of a row are explained in README.md under "Write a patch".
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from .patch import distribution_of
from .settings import in_one_line
from .targets import module_of

SCHEMA = 1
FILE = "compat_matrix.yaml"
OUTCOMES = ("fixed", "fine", "not_applicable")
KINDS = ("fix", "add")  # a fault goes away and nothing else changes; a capability the host lacks

Versions = Mapping[str, "Version | None"]  # by distribution; None: installed, version unknown


class MatrixError(ValueError):
    """The matrix or a third party's row does not follow the schema; the message says where."""


class Variant(NamedTuple):
    """One state of a host's code: the fingerprints of a patch's targets in all of ``releases``."""

    releases: tuple[str, ...]
    targets: Mapping[str, str]  # target: fingerprint

    @property
    def modules(self) -> frozenset[str]:
        return frozenset(map(module_of, self.targets))


class Row(NamedTuple):
    id: str
    title: str
    faulty: tuple[Mapping[str, SpecifierSet], ...]  # alternatives; all parts of one must hold
    fixed_in: str | None
    upstream: tuple[str, ...]
    opt_in: bool
    kind: str  # of KINDS
    code: tuple[Variant, ...]

    @property
    def distribution(self) -> str:
        return distribution_of(self.id.partition(".")[0])

    @property
    def distributions(self) -> frozenset[str]:
        """The row's own and all that its conditions name."""
        return frozenset({self.distribution}.union(*self.faulty))

    def is_faulty(self, versions: Versions) -> bool:
        """Whether the matrix says that this combination has the fault; an unknown version may."""
        return any(_all_hold(alternative, versions, True) for alternative in self.faulty)

    def variant_of(self, release: str) -> Variant | None:
        return next((variant for variant in self.code if release in variant.releases), None)


class Evidence(NamedTuple):
    """What the release matrix measured of one patch."""

    measured: Mapping[str, str]  # what the probe saw, stock and patched
    outcomes: Mapping[str, tuple[str, ...]]  # combinations by outcome


class Advice(NamedTuple):
    """What users of a combination should know, since no patch can mend it."""

    when: Mapping[str, SpecifierSet]
    text: str  # the symptom, and what to do
    link: str | None  # the source
    system: str | None  # as platform.system() says it; None for all


class Matrix(NamedTuple):
    releases: Mapping[str, tuple[str, ...]]  # by distribution, oldest first
    gemma4_since: Mapping[str, str]  # the first of them with a Gemma 4, where it is not the oldest
    advice: tuple[Advice, ...]
    rows: Mapping[str, Row]
    combinations: Mapping[str, Mapping[str, str]]  # what the release matrix runs
    evidence: Mapping[str, Evidence]  # by patch id

    def advise(self, versions: Versions) -> list[str]:
        """What users of this combination on this system should know."""
        return [
            f"{advice.text} ({advice.link})" if advice.link else advice.text
            for advice in self.advice
            if advice.system in (None, platform.system())
            and _all_hold(advice.when, versions, False)
        ]

    @property
    def distributions(self) -> frozenset[str]:
        """All that conditions of rows and advice name."""
        named = [row.distributions for row in self.rows.values()]
        return frozenset().union(*named, *(advice.when for advice in self.advice))

    def has_gemma4(self, distribution: str, release: str) -> bool:
        """Whether a measured release is not older than Gemma 4."""
        first = self.gemma4_since.get(distribution, release)
        return Version(release) >= Version(first)

    def release(self, distribution: str, version: Version | None) -> str | None:
        """The measured release that ``version`` is, or None for any other version."""
        return next(
            (r for r in self.releases.get(distribution, ()) if version and Version(r) == version),
            None,
        )


def path() -> Path:
    """Where the matrix lies: beside the package in a wheel, in the repository's root with ``-e``.

    Raises:
        MatrixError: in neither place.
    """
    package = Path(__file__).parent
    for folder in (package, package.parent):
        if (folder / FILE).is_file():
            return folder / FILE
    raise MatrixError(f"{FILE} is neither in {package} nor beside it; reinstall mlx-gemma4-patches")


@functools.cache
def load(host: str | None = None) -> Matrix:
    """The matrix of this installation: all of it, or what patching ``host`` takes.

    Raises:
        MatrixError: missing, unreadable or not of the schema.
    """
    try:
        text = _packed() or path().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MatrixError(f"{FILE}: {error}") from error
    return parse(text, FILE, host)


def _packed() -> str | None:
    """The matrix out of an archive that Python imports this package from, such as a zipapp."""
    loader: Any = __spec__.loader
    if not hasattr(loader, "archive"):
        return None
    return loader.get_data(str(Path(__file__).parent / FILE)).decode()


def parse(text: str, name: str = FILE, host: str | None = None) -> Matrix:
    """The matrix in ``text``, read up to the patches of ``host`` if one is given.

    ``name`` stands in error messages.

    Raises:
        MatrixError: not YAML, or not of the schema.
    """
    data: dict[str, Any] = {}
    rows: dict[str, Row] = {}
    try:
        for document in _documents(text):
            if document.get("end") not in ("document", "file"):
                raise MatrixError("cut off: a document does not say where it ends")
            patches = _mapping(document.get("patches", {}), "patches")
            rows |= {key: parse_row(key, value) for key, value in patches.items()}
            data.update(document)
            if host is not None and document.get("host") == host:
                break
        else:
            if host is not None or data.get("end") != "file":
                raise MatrixError(f"cut off: {host or 'the end'} is missing")
        if data.get("schema") != SCHEMA:
            raise MatrixError(
                f"schema {data.get('schema')!r} is not {SCHEMA}, the one this version reads"
            )
        return Matrix(
            releases={
                key: _versions(value, f"releases.{key}")
                for key, value in _mapping(data.get("releases"), "releases").items()
            },
            gemma4_since=_releases_by_name(data.get("gemma4_since", {}), "gemma4_since"),
            advice=tuple(
                _advice(part, "advice") for part in _sequence(data.get("advice", []), "advice")
            ),
            rows=rows,
            combinations={
                key: _strings_by_name(value, f"combinations.{key}")
                for key, value in _mapping(data.get("combinations", {}), "combinations").items()
            },
            evidence={
                key: _evidence(value, f"evidence.{key}")
                for key, value in _mapping(data.get("evidence", {}), "evidence").items()
            },
        )
    except MatrixError as error:
        raise MatrixError(f"{name}: {error}") from error


def _documents(text: str) -> Iterator[Mapping[str, Any]]:
    documents = yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    while True:
        try:
            document = next(documents, None)
        except Exception as error:  # YAML's constructors raise what they like
            raise MatrixError(f"no valid YAML: {in_one_line(error)}") from error
        if document is None:
            return
        yield _mapping(document, "a document")


_ROW_KEYS = {"title", "kind", "faulty", "fixed_in", "upstream", "opt_in", "code"}


def parse_row(patch_id: str, data: Any) -> Row:
    """One row of the matrix.

    Raises:
        MatrixError: not of the schema.
    """
    where = f"patches.{patch_id}"
    if not all(patch_id.partition(".")):
        raise MatrixError(f"{where}: an id is host.fault")
    row = _mapping(data, where)
    if unknown := set(row) - _ROW_KEYS:
        raise MatrixError(f"{where}: unknown keys {', '.join(sorted(map(str, unknown)))}")
    opt_in = row.get("opt_in", False)
    if not isinstance(opt_in, bool):
        raise MatrixError(f"{where}.opt_in: {opt_in!r} is neither true nor false")
    kind = row.get("kind", "fix")
    if kind not in KINDS:
        raise MatrixError(f"{where}.kind: {kind!r:.60} is neither {' nor '.join(KINDS)}")
    fixed_in = row.get("fixed_in")
    return Row(
        id=patch_id,
        title=_string(row.get("title"), f"{where}.title"),
        faulty=tuple(
            _specifiers(part, f"{where}.faulty")
            for part in _sequence(row.get("faulty"), f"{where}.faulty")
        ),
        fixed_in=None if fixed_in is None else _string(fixed_in, f"{where}.fixed_in"),
        upstream=_strings(row.get("upstream", []), f"{where}.upstream"),
        opt_in=opt_in,
        kind=kind,
        code=tuple(
            _code(part, f"{where}.code") for part in _sequence(row.get("code", []), f"{where}.code")
        ),
    )


def _all_hold(condition: Mapping[str, SpecifierSet], versions: Versions, unknown: bool) -> bool:
    """``unknown``: what holds of a distribution that is installed in no known version."""
    for name, specifier in condition.items():
        if name not in versions:
            return False
        version = versions[name]
        if not (unknown if version is None else specifier.contains(version, prereleases=True)):
            return False
    return True


def _code(data: Any, where: str) -> Variant:
    part = _mapping(data, where)
    targets = _strings_by_name(part.get("targets"), f"{where}.targets")
    for target in targets:
        if not all(target.partition(":")):
            raise MatrixError(f"{where}.targets: {target!r} is not of the form module:path")
    return Variant(_versions(part.get("releases"), f"{where}.releases"), targets)


def _evidence(data: Any, where: str) -> Evidence:
    part = dict(_mapping(data, where))
    measured = _strings_by_name(part.pop("measured", {}), f"{where}.measured")
    if unknown := set(part) - set(OUTCOMES):
        raise MatrixError(f"{where}: unknown outcomes {', '.join(sorted(unknown))}")
    return Evidence(measured, {key: _strings(value, where) for key, value in part.items()})


def _advice(data: Any, where: str) -> Advice:
    part = _mapping(data, where)
    if unknown := set(part) - set(Advice._fields):
        raise MatrixError(f"{where}: unknown keys {', '.join(sorted(unknown))}")
    link, system = (
        None if part.get(key) is None else _string(part[key], f"{where}.{key}")
        for key in ("link", "system")
    )
    text = _string(part.get("text"), where)
    return Advice(_specifiers(part.get("when"), f"{where}.when"), text, link, system)


def _specifiers(data: Any, where: str) -> dict[str, SpecifierSet]:
    found = {}
    for name, text in _strings_by_name(data, where).items():
        try:
            found[name] = SpecifierSet(text)
        except InvalidSpecifier as error:
            raise MatrixError(f"{where}.{name}: {error}") from error
    return found


def _versions(data: Any, where: str) -> tuple[str, ...]:
    texts = _strings(data, where)
    for text in texts:
        try:
            Version(text)
        except ValueError as error:
            raise MatrixError(f"{where}: {error}") from error
    return texts


def _releases_by_name(data: Any, where: str) -> dict[str, str]:
    return {name: _versions([text], where)[0] for name, text in _mapping(data, where).items()}


def _strings(data: Any, where: str) -> tuple[str, ...]:
    return tuple(_string(item, where) for item in _sequence(data, where))


def _strings_by_name(data: Any, where: str) -> dict[str, str]:
    return {key: _string(value, f"{where}.{key}") for key, value in _mapping(data, where).items()}


def _string(data: Any, where: str) -> str:
    if not isinstance(data, str) or not data.strip():
        raise MatrixError(f"{where}: expected text, found {data!r:.60}")
    return data


def _sequence(data: Any, where: str) -> Iterable[Any]:
    if not isinstance(data, (list, tuple)):
        raise MatrixError(f"{where}: expected a list, found {data!r:.60}")
    return data


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise MatrixError(f"{where}: expected a mapping, found {data!r:.60}")
    for key in data:
        _string(key, f"{where}: key")
    return data
