"""Reads a model folder whose files nobody vouches for: JSON and the headers of safetensors.

No weight is read, nothing is executed, and whatever is wrong becomes a remark. The layout of a
safetensors file: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..settings import in_one_line

JSON_LIMIT = 64 << 20  # bytes; a tokenizer.json of Gemma 4 has 32 MB
_HEADER_LIMIT = 100 << 20  # bytes; what safetensors itself allows
_MOST_TENSORS = 200_000  # in all; a 26B-A4B with one tensor for each expert has 24 000
_NAMED = 3  # of many, how many a remark names

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
INDEX = "model.safetensors.index.json"


class Remark(NamedTuple):
    """One thing that was found, what it means for the user, and what to do about it.

    ``level`` is ``problem``: it does not load, or answers are wrong; ``warning``: it works, at a
    cost; ``fact``: good to know.
    """

    level: str
    subject: str
    found: str
    means: str = ""
    do: str = ""


class Tensor(NamedTuple):
    """A tensor as a header describes it."""

    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    bytes: int


class Unreadable(ValueError):
    """A file that is no use; the message says why."""


class Folder:
    """A model folder; what could not be read of it is in ``remarks``."""

    def __init__(self, path: Path):
        self.path = path
        self.remarks: list[Remark] = []
        self.names = self._list()
        self.config = self.json("config.json", needed=True)
        self.tensors = dict(self._tensors())
        self._look_for_code()

    def json(self, name: str, needed: bool = False) -> dict[str, Any]:
        """The object in a JSON file; empty where there is none to be had."""
        if name not in self.names:
            if needed:
                text = f"there is no {name}"
                self.problem("files", text, "No host loads this folder.", _AGAIN)
            return {}
        try:
            content = json.loads(self.read(name, JSON_LIMIT))
            if not isinstance(content, dict):
                raise Unreadable("its JSON is no object")
            return content
        except RecursionError:
            reason = "it is nested too deeply"
        except (OSError, ValueError) as error:
            reason = why(error)
        means = "Hosts stop at it, or take their defaults without a word."
        self.problem("files", f"{name} cannot be read: {reason}", means, _AGAIN)
        return {}

    def text(self, name: str) -> str:
        """The text of a file; empty where there is none, with a remark where it cannot be read."""
        if name not in self.names:
            return ""
        try:
            return self.read(name, JSON_LIMIT).decode()
        except (OSError, ValueError) as error:
            self.problem("files", f"{name} cannot be read: {why(error)}", "", _AGAIN)
            return ""

    def read(self, name: str, limit: int) -> bytes:
        """All of a file.

        Raises:
            OSError: it cannot be opened.
            Unreadable: no regular file, or larger than ``limit`` bytes.
        """
        file = self.path / name
        size = _size(file)
        if size > limit:
            raise Unreadable(f"it has {size:,} bytes, more than any such file needs")
        return file.read_bytes()

    def problem(self, subject: str, found: str, means: str = "", do: str = "") -> None:
        self.remarks.append(Remark("problem", subject, found, means, do))

    def warn(self, subject: str, found: str, means: str = "", do: str = "") -> None:
        self.remarks.append(Remark("warning", subject, found, means, do))

    def fact(self, subject: str, found: str, means: str = "", do: str = "") -> None:
        self.remarks.append(Remark("fact", subject, found, means, do))

    def _list(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.path))
        except OSError as error:
            self.problem("files", f"the folder cannot be listed: {why(error)}")
            return frozenset()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors, as the index and the headers of its files say."""
        files = sorted(name for name in self.names if name.endswith(".safetensors"))
        placed = self._index()
        missing = sorted({file for file in placed.values() if file not in self.names})
        if missing:
            text = f"{_some(missing)} of {INDEX} not in the folder"
            means = "Loading ends in missing parameters, or takes random numbers for them."
            self.problem("files", text, means, _AGAIN)
        if not files:
            means = "mlx-lm, mlx-vlm and vllm-mlx read no other weights."
            self.problem("files", "there are no safetensors files", means, _AGAIN)
        seen: dict[str, str] = {}
        for file in files:
            try:
                tensors = _header(self.path / file)
            except RecursionError:
                self.problem("files", f"{file}: its header is nested too deeply", "", _AGAIN)
                continue
            except (OSError, ValueError) as error:
                means = "The weights in it are lost."
                self.problem("files", f"{file}: {why(error)}", means, _AGAIN)
                continue
            twice = sorted(name for name in tensors if name in seen)
            if twice:
                text = f"{_some(twice)} in {file} and also in {seen[twice[0]]}"
                means = "Which of the two a host takes is chance."
                self.problem("files", text, means, "Remove the file that the index does not name.")
            seen |= dict.fromkeys(tensors, file)
            if len(seen) > _MOST_TENSORS:
                self.problem("files", f"more than {_MOST_TENSORS:,} tensors", "No Gemma 4 has so.")
                return
            yield from tensors.items()
        if placed and not missing:
            lost = sorted(name for name, file in placed.items() if seen.get(name) != file)
            if lost:
                text = f"{INDEX} places {_some(lost)} where no such tensor is"
                means = "The index is of other files than these."
                self.problem("files", text, means, "Download index and weights again, together.")

    def _index(self) -> dict[str, str]:
        """Files by tensor; empty without an index, and where it makes no sense."""
        placed = self.json(INDEX).get("weight_map", {})
        if isinstance(placed, dict) and all(
            isinstance(file, str) and "/" not in file and "\\" not in file
            for file in placed.values()
        ):
            return placed
        means = "A host that follows it reads other files than these."
        self.problem("files", f"the weight_map of {INDEX} names no files of this folder", means)
        return {}

    def _look_for_code(self) -> None:
        pickles = sorted(name for name in self.names if name.endswith(_PICKLES))
        if pickles:
            text = f"pickled weights: {_some(pickles)}"
            means = "No host reads them; torch.load runs what code they hold. Nobody opened them."
            self.warn("files", text, means, "Leave them, or delete them.")
        code = [key for key in ("model_file", "auto_map") if self.config.get(key)]
        if code:
            text = f"config.json names code of its own ({', '.join(code)})"
            means = "Some releases of mlx-lm run it when they load the model. Gemma 4 needs none."
            self.warn("files", text, means, "Remove the key unless you trust where it is from.")


_AGAIN = "Download or convert it again."


def is_size(value: Any) -> bool:
    """Whether a value of a config can be a size of a model."""
    return type(value) is int and 0 < value < 1 << 20


def locate(name: str) -> Path | None:
    """The folder of a model: a path, or the name of one in the local hub cache."""
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json")
    except (ImportError, ValueError):  # no hub, or no name of a model
        found = None
    return Path(found).parent if isinstance(found, str) else None


def _header(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is none, or cut off; the message says so.
    """
    size = _size(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise Unreadable("no safetensors file, or its header is cut off")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise Unreadable("its header is no object")
    header.pop("__metadata__", None)
    return {name: _tensor(name, entry, size - 8 - length) for name, entry in header.items()}


def _tensor(name: str, entry: Any, room: int) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = _BITS[dtype]
        if not all(type(n) is int and 0 <= n < 1 << 40 for n in (*shape, start, end)):
            raise ValueError
        if len(shape) > 8 or (end - start) * 8 != math.prod(shape) * bits:
            raise ValueError
    except (LookupError, TypeError, ValueError):
        raise Unreadable(f"the header's entry of {name!r:.80} makes no sense") from None
    if end > room:
        raise Unreadable(f"cut off: {name!r:.80} ends {end - room:,} bytes behind the file's end")
    return Tensor(dtype, tuple(shape), end - start)


def _size(file: Path) -> int:
    """Bytes of a regular file; anything else could keep a reader waiting for ever."""
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("it is no regular file")
    return found.st_size


def why(error: Exception) -> str:
    """An error without the path in it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, json.JSONDecodeError):
        return f"it is no valid JSON: {error}"
    return str(error) if isinstance(error, Unreadable) else in_one_line(error)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(f'{name:.80}' for name in names[:_NAMED])}{more}"
