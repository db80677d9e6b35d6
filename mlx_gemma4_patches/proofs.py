"""What was proved on this machine: patches that fit code which no measured release has.

``python -m mlx_gemma4_patches prove`` writes the file. It lies in the environment (``sys.prefix``),
of whose releases it speaks: whoever uses the environment has it, an image that is built from it
too, and it goes when the environment goes. The engine reads it for releases that are not in the
matrix, and takes exactly the code that was proved for known.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.version import Version

from . import __version__
from .settings import in_one_line

SCHEMA = 1
COMMAND = "python -m mlx_gemma4_patches prove"


class Proof(NamedTuple):
    """One patch that was seen to remove its fault here and to harm nothing."""

    targets: Mapping[str, str | None]  # fingerprints; None: there was no such place
    beside: Mapping[str, str]  # versions of the other distributions that the fault depends on
    release: str  # of the host, in words
    date: str  # year-month-day
    stock: str  # what the probe measured without the patch
    patched: str  # and with it

    def is_beside(self, versions: Mapping[str, Version | None]) -> bool:
        """Whether the other distributions are those that the patch was proved beside."""
        return all(str(versions.get(name)) == version for name, version in self.beside.items())


class Proofs(NamedTuple):
    """Everything that one run of ``prove`` found."""

    versions: Mapping[str, str]  # of the hosts and what they stand on, when it ran
    proved: Mapping[str, Proof]  # by patch id
    left_off: Mapping[str, str]  # why, by patch id


NOTHING = Proofs({}, {}, {})
_trial: Proofs | None = None


def path() -> Path:
    """Where the proofs of this environment lie, or would."""
    return Path(sys.prefix) / "share" / "mlx-gemma4-patches" / "proved.json"


def use(trial: Proofs) -> None:
    """In a process that tries patches: take this for what was proved, not the file."""
    global _trial
    _trial = trial


def read(problem: Callable[[str], None]) -> Proofs:
    """What was proved here; nothing, and one line to ``problem``, where the file is of no use."""
    if _trial is not None:
        return _trial
    file = path()
    try:
        data = json.loads(file.read_bytes())
        if data["schema"] != SCHEMA or data["package"] != __version__:
            raise ValueError("it was made by another release of mlx-gemma4-patches")
        if data["prefix"] != sys.prefix:
            raise ValueError(f"it was made for {data['prefix']}")
        return parse(data)
    except FileNotFoundError:
        return NOTHING
    except Exception as error:  # whatever stands there, the host's import goes on
        reason = str(error) if type(error) is ValueError else in_one_line(error)
        problem(f"{file} is ignored: {reason}; `{COMMAND}` writes it anew, --forget removes it")
        return NOTHING


def parse(data: Any) -> Proofs:
    """Proofs from what ``plain`` gives.

    Raises:
        ValueError: it is none of that.
    """
    try:
        return Proofs(
            _texts(data["versions"]),
            {
                name: Proof(
                    targets=_fingerprints(part["targets"]),
                    beside=_texts(part["beside"]),
                    **{key: _text(part[key]) for key in ("release", "date", "stock", "patched")},
                )
                for name, part in data["proved"].items()
            },
            _texts(data["left_off"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no file of proofs ({in_one_line(error)})") from None


def plain(found: Proofs) -> dict[str, Any]:
    """Ready for JSON."""
    proved = {name: proof._asdict() for name, proof in found.proved.items()}
    return {**found._asdict(), "proved": proved}


def write(found: Proofs) -> Path:
    """Put proofs in the place of those before, all or nothing; returns the file.

    Raises:
        OSError: it cannot be written.
    """
    import tempfile  # hosts' imports read only, and need not wait for it

    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    head = {"schema": SCHEMA, "package": __version__, "prefix": sys.prefix}
    text = json.dumps({**head, **plain(found)}, indent=1)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".proved-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as unfinished:
            unfinished.write(text)
        os.chmod(name, 0o644)  # others who use the environment read it
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
    return file


def forget() -> bool:
    """Remove the file; returns whether there was one.

    Raises:
        OSError: it cannot be removed.
    """
    file = path()
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError):  # something else lies there
        file.parent.rmdir()
    return True


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(key): _text(part) for key, part in value.items()}


def _fingerprints(value: Any) -> dict[str, str | None]:
    found = {_text(key): None if part is None else _text(part) for key, part in value.items()}
    if not any(found.values()) or not all(all(key.partition(":")) for key in found):
        raise ValueError("it names no code")
    return found
