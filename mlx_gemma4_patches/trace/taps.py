"""What a Gemma 4 of a host computes on the way, without a change to what it computes.

A module of mlx is tapped by giving the instance a class of its own, derived from its class, whose
``__call__`` also keeps what it sees. Patches of the class itself are in effect below.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

Seen = dict[str, tuple[np.ndarray, np.ndarray]]


class Recorder:
    """Keeps tensors of the passes through a text model, until ``stop`` is called."""

    def __init__(self, table: mx.array):
        """``table`` (vocabulary, hidden) is what ids are embedded by."""
        self._table = table
        self._is_on = True
        self._passes: list[mx.array] = []  # what entered the layers, (B, columns, hidden)
        self._pieces: dict[str, list[tuple[int, mx.array]]] = defaultdict(list)
        self._media: dict[str, list[mx.array]] = defaultdict(list)

    def stop(self) -> None:
        self._is_on = False

    def begin(self, hidden: mx.array) -> None:
        """A pass begins, with ``hidden`` (B, columns, hidden)."""
        if self._is_on:
            self._passes.append(hidden)
            self.add("embeddings", hidden)

    def add(self, name: str, value: mx.array) -> None:
        """(B, columns, ...) of the last columns of this pass."""
        if self._is_on and self._passes:
            self._pieces[name].append((len(self._passes) - 1, value))

    def add_media(self, name: str, value: mx.array) -> None:
        """(..., hidden): soft tokens."""
        if self._is_on:
            self._media[name].append(value.reshape(-1, value.shape[-1]))

    def seen(self, prompt: list[int]) -> Seen:
        """Of each tensor the positions of ``prompt`` that were seen, and (positions, width) values.

        Several rows were read at once: that which is ``prompt`` is meant. One row may be its end
        alone, where the rest was in a cache.
        """
        row, places = self._places(prompt)
        made: Seen = {}
        for name, pieces in self._pieces.items():
            found, values = [], []
            for number, value in pieces:
                at = places[number][-value.shape[1] :]
                if (kept := np.flatnonzero(at >= 0)).size:
                    found.append(at[kept])
                    values.append(_numpy(value[row])[kept])
            if found:
                made[name] = np.concatenate(found), np.concatenate(values)
        for name, parts in self._media.items():
            rows = np.concatenate([_numpy(part) for part in parts])
            made[name] = np.arange(len(rows)), rows
        if "logits" in made:  # of the last position alone, as some releases make no others
            positions, values = made["logits"]
            made["logits"] = np.array([0]), values[positions == len(prompt) - 1][-1:]
        return made

    def _places(self, prompt: list[int]) -> tuple[int, list[np.ndarray]]:
        """The row of ``prompt``; and for each pass, the position in it of each column, or -1."""
        lengths = [hidden.shape[1] for hidden in self._passes]
        rows = [hidden.shape[0] for hidden in self._passes]
        total = sum(lengths)
        if set(rows) == {1} and total <= len(prompt):
            end = np.cumsum(lengths) - total + len(prompt)
            return 0, [np.arange(e - n, e) for e, n in zip(end, lengths, strict=True)]
        ids = [self._ids(hidden) for hidden in self._passes]
        for row in range(max(rows)):
            position, places = 0, []
            for columns in ids:
                at = np.full(columns.shape[1], -1)
                for column, token in enumerate(columns[row] if row < len(columns) else ()):
                    if position < len(prompt) and token == prompt[position]:
                        at[column] = position
                        position += 1
                places.append(at)
            if position == len(prompt):
                return row, places
        raise RuntimeError("none of the rows that were read is the prompt")

    def _ids(self, hidden: mx.array) -> np.ndarray:
        """Which row of the table each column comes from, (B, columns)."""
        directions = self._table / mx.linalg.norm(self._table, axis=-1, keepdims=True)
        return np.array(mx.argmax(hidden @ directions.T, axis=-1))


def _numpy(value: mx.array) -> np.ndarray:
    """(rows, width) float32."""
    return np.array(value.astype(mx.float32)).reshape(value.shape[0], -1)


def tap(model: Any) -> Recorder:
    """Record what a host's Gemma 4, which has a ``language_model``, computes from now on."""
    text = getattr(model, "language_model", model)  # a text model alone is its own
    inner = text.model
    recorder = Recorder(inner.embed_tokens.weight)
    _tap(text, after=lambda out, *_: recorder.add("logits", getattr(out, "logits", out)))
    first_shared = len(inner.layers) - getattr(inner.config, "num_kv_shared_layers", 0)
    own = inner.layers[:first_shared]
    last_of_kind = {layer.layer_type: index for index, layer in enumerate(own)}
    for index, layer in enumerate(inner.layers):
        is_shared = len(own) < len(inner.layers) and index in last_of_kind.values()
        _tap_layer(layer, index, is_shared, recorder)
    _tap(inner.norm, after=lambda out, *_: recorder.add("final norm", out))
    for name, part in (("image features", "embed_vision"), ("sound features", "embed_audio")):
        if embedder := getattr(model, part, None):
            _tap(embedder, after=lambda out, *_, name=name: recorder.add_media(name, out))
    return recorder


def tap_assistant(assistant: Any) -> Recorder:
    """Record what an assistant computes of each draft from now on."""
    inner = assistant.model
    recorder = Recorder(inner.embed_tokens.weight)
    for index, layer in enumerate(inner.layers):
        _tap_layer(layer, index, False, recorder)
    _tap(inner.norm, after=lambda out, *_: recorder.add("final norm", out))
    _tap(assistant.post_projection, after=lambda out, *_: recorder.add("next hidden", out))
    return recorder


def _tap_layer(layer: Any, index: int, is_shared: bool, recorder: Recorder) -> None:
    """``is_shared``: later layers use its keys and values."""
    signature = inspect.signature(type(layer).__call__)

    def before(*args: Any, **how: Any) -> None:
        given = signature.bind(layer, *args, **how).arguments
        if index == 0:
            recorder.begin(args[0])
        if given.get("per_layer_input") is not None:
            recorder.add(f"layer {index} per-layer input", given["per_layer_input"])

    def attended(out: Any, hidden: mx.array, *_: Any) -> None:
        recorder.add(f"layer {index} attention", _first(out))
        columns = hidden.shape[1]
        # a window's single new column is written where the oldest was
        if is_shared and isinstance(out, tuple) and columns > 1:
            for name, value in zip(("keys", "values"), out[1], strict=True):
                last = value[:, :, -columns:].transpose(0, 2, 1, 3)
                recorder.add(f"layer {index} shared {name}", last)

    def kept(name: str) -> Callable:
        return lambda out, *_: recorder.add(name, _first(out))

    _tap(layer.self_attn, after=attended)
    _tap(layer.mlp, after=kept(f"layer {index} MLP"))
    if getattr(layer, "experts", None) is not None:
        _tap(layer.experts, after=kept(f"layer {index} experts"))
    _tap(layer, before=before, after=kept(f"layer {index}"))


def _first(out: Any) -> mx.array:
    return out[0] if isinstance(out, tuple) else out


def _tap(module: Any, before: Callable | None = None, after: Callable | None = None) -> None:
    kind = type(module)

    def call(self: Any, *args: Any, **how: Any) -> Any:
        if before:
            before(*args, **how)
        out = kind.__call__(self, *args, **how)
        if after:
            after(out, *args)
        return out

    body = {"__call__": call, "__module__": kind.__module__}
    module.__class__ = type(kind.__name__, (kind,), body)
