"""The table of per-layer embeddings in pieces, for devices that take no buffer of its size.

E2B and E4B look up inputs for every layer in one table of the vocabulary: 4.70 GB and 5.64 GB in
bfloat16. Metal refuses a buffer above the device's ``max_buffer_length``, whatever memory is free.

MLX reads a tensor of a file as a whole, also where only a slice of it is asked for. So the rows of
a piece are read here, from the place that the header of the safetensors file names.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .stop_tokens import is_gemma4_folder

NAME = "embed_tokens_per_layer"

_LONGEST_HEADER = 100 << 20  # bytes, of a safetensors file
_DTYPES = {
    "BF16": mx.bfloat16,
    "F16": mx.float16,
    "F32": mx.float32,
    "U32": mx.uint32,
    "U8": mx.uint8,
}


class SplitEmbedding(nn.Module):
    """Consecutive rows of one embedding table in several tables, plain or quantized."""

    def __init__(self, parts: list[nn.Module]):
        super().__init__()
        self.parts = parts

    def __call__(self, ids: mx.array) -> mx.array:
        """The rows (..., D) of integer ids (...), value for value those of the whole table."""
        rows, start = None, 0
        for part in self.parts:
            size = len(part.weight)
            found = part(mx.clip(ids - start, 0, size - 1))
            rows = found if rows is None else mx.where((ids < start)[..., None], rows, found)
            start += size
        return rows

    def whole(self) -> nn.Module:
        """The table in one piece, not evaluated."""
        table = copy.copy(self.parts[0])
        for name, value in table.items():
            if isinstance(value, mx.array):
                table[name] = mx.concatenate([part[name] for part in self.parts])
        return table


class _Stored(NamedTuple):
    """A tensor in a file."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.size

    def rows(self, start: int, stop: int) -> mx.array:
        offset, shape = self.offset + start * self.row_bytes, (stop - start, self.row_bytes)
        return mx.array(np.memmap(self.file, np.uint8, "r", offset, shape)).view(self.dtype)


Table = Mapping[str, _Stored]  # weight, and scales and biases of a quantized table


def too_large(folder: Path) -> Table | None:
    """The table in a model folder, if it is Gemma 4's and this device takes no buffer of its size.

    None also where a file of weights cannot be read: the host says so better.
    """
    limit = _largest_buffer()
    if limit is None or not is_gemma4_folder(folder):
        return None
    try:
        table = dict(entry for file in folder.glob("model*.safetensors") for entry in _stored(file))
        sizes = [tensor.shape[0] * tensor.row_bytes for tensor in table.values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return table if max(sizes, default=0) > limit else None


def splitting(table: Table, classes: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """A host's ``get_model_classes``, of models that take ``table`` in pieces when loaded."""

    def get_model_classes(config: dict[str, Any]) -> tuple[Any, Any]:
        model_class, args_class = classes(config=config)

        def make(args: Any) -> nn.Module:
            model = model_class(args)

            def load_weights(weights: Iterable[tuple[str, mx.array]], strict: bool = True):
                del model.load_weights  # the class's own again
                return model.load_weights(_split(model, dict(weights), table), strict)

            model.load_weights = load_weights
            return model

        return make, args_class

    return get_model_classes


@contextlib.contextmanager
def in_one_piece(model: nn.Module) -> Iterator[None]:
    """Within, split tables of ``model`` are whole, named as in checkpoints."""
    split = [m for m in model.modules() if isinstance(m.get(NAME), SplitEmbedding)]
    tables = [owner[NAME] for owner in split]
    for owner, table in zip(split, tables, strict=True):
        owner[NAME] = table.whole()
    try:
        yield
    finally:
        for owner, table in zip(split, tables, strict=True):
            owner[NAME] = table


def _split(
    model: nn.Module, weights: dict[str, mx.array], table: Table
) -> list[tuple[str, mx.array]]:
    """Put ``table`` into ``model`` in pieces; returns ``weights`` with the pieces' names."""
    path = next((name for name in weights if name.endswith(f".{NAME}.weight")), None)
    if path is None or "weight" not in table:
        return list(weights.items())
    path = path.removesuffix(".weight")
    owner = operator.attrgetter(path.removesuffix(f".{NAME}"))(model)
    module = owner[NAME]
    for name, tensor in table.items():
        value, slot = weights.get(f"{path}.{name}"), module.get(name)
        if value is None or slot is None or value.dtype != tensor.dtype:
            return list(weights.items())  # the host makes something else of it
        if not value.shape == tensor.shape == slot.shape:
            return list(weights.items())  # it does not fit: the host says so
    parts = []
    for start, stop in _pieces(table):
        part = copy.copy(module)
        for name, tensor in table.items():
            part[name] = tensor.rows(start, stop)
            mx.eval(part[name])
            weights[f"{path}.parts.{len(parts)}.{name}"] = part[name]
        parts.append(part)
    owner[NAME] = SplitEmbedding(parts)
    return [pair for pair in weights.items() if pair[0].removeprefix(f"{path}.") not in table]


def _pieces(table: Table) -> list[tuple[int, int]]:
    """The fewest stretches of rows that fit the device, of one size but for the last."""
    rows = table["weight"].shape[0]
    most = _largest_buffer() // max(tensor.row_bytes for tensor in table.values())
    size = math.ceil(rows / math.ceil(rows / most))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _largest_buffer() -> int | None:
    """What the device says; None where it sets no limit, as CPU and CUDA do."""
    return mx.device_info().get("max_buffer_length")


def _stored(file: Path) -> Iterator[tuple[str, _Stored]]:
    """The table's tensors in a safetensors file, by the last part of their names."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(min(size, _LONGEST_HEADER)))
    for name, entry in header.items():
        if f".{NAME}." in name and entry["dtype"] in _DTYPES:
            offset, shape = 8 + size + entry["data_offsets"][0], tuple(entry["shape"])
            yield name.rpartition(".")[2], _Stored(file, offset, shape, _DTYPES[entry["dtype"]])
