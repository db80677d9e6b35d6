"""A batch of conversations in the caches of one model, checked token by token.

Whatever is done to a batch, a token's logits have to be those of its row alone and without a
cache.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts.contract import PatchContract
from tests.hosts.parity import distance

_TEXTS = mx.array([tiny.prompt(80, seed=row) for row in range(4)])
LENGTHS = (40, 21, 5)  # two past the window of 16


def models(host: str) -> dict[str, Callable[[], Any]]:
    """What builds the models to try on this installation, by name; nothing without the host."""
    if find_spec(host) is None:
        return {}
    if host == "mlx_lm":
        from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model as gemma4

        shapes = ("e2b", "dense") if find_spec("mlx_lm.models.gemma4") else ()
        found = {"gemma3n": other_models.gemma3n}
    else:
        from mlx_gemma4_patches.hosts.mlx_vlm import tiny as mlx_vlm_tiny

        def gemma4(shape: str) -> Any:
            return mlx_vlm_tiny.model(shape).language_model

        # before 0.6.4 layers that share K/V have faults of their own, see shared_kv_offset; before
        # 0.5.0 gemma3n takes no batch
        shapes = ("e2b", "dense") if has_own_caches(host) else ("dense",)
        found = {"gemma3n": other_models.gemma3n_vlm} if has_own_caches(host) else {}
    return found | {shape: functools.partial(gemma4, shape) for shape in shapes}


def has_own_caches(host: str) -> bool:
    """Whether the host defines its cache classes; mlx-vlm before 0.6.4 has mlx-lm's."""
    module = cache_module(host)
    return module.BatchKVCache.__module__ == module.__name__


def cache_module(host: str) -> ModuleType:
    return importlib.import_module(f"{host}.models.cache")


class Subject:
    """A model, the module of its cache classes, and the logits of whole texts without a cache."""

    def __init__(self, model: Any, caches: ModuleType):
        self.model = model
        self.caches = caches
        self.whole = self.logits(_TEXTS)

    def logits(self, ids: mx.array, layers: list | None = None) -> mx.array:
        """(B, L) ids -> (B, L, vocabulary)."""
        made = self.model(ids, cache=layers)
        return getattr(made, "logits", made)

    def batch_caches(self, padding: list[int]) -> list:
        """Empty batch caches for the layers of the model."""
        return [
            self.caches.BatchRotatingKVCache(layer.max_size, padding)
            if hasattr(layer, "max_size")
            else self.caches.BatchKVCache(padding)
            for layer in self.model.make_cache()
        ]


class Batch:
    """Rows 0, 1, ... of known text, and how much of each is in the caches.

    ``worst`` is the largest difference of a logit so far.
    """

    def __init__(self, subject: Subject, layers: list, rows: list[int], lengths: list[int]):
        self.subject = subject
        self.layers = layers
        self.rows = rows
        self.lengths = lengths
        self.worst = 0.0

    @classmethod
    def left_padded(cls, subject: Subject, lengths: tuple[int, ...] = LENGTHS) -> Batch:
        """Prompts of ``lengths`` tokens, prefilled with padding on the left."""
        padding = [max(lengths) - length for length in lengths]
        rows = list(range(len(lengths)))
        batch = cls(subject, subject.batch_caches(padding), rows, [0] * len(lengths))
        batch.feed(list(lengths), padding_on="left")
        return batch

    @classmethod
    def merged(cls, subject: Subject, lengths: tuple[int, ...] = LENGTHS) -> Batch:
        """Prompts of ``lengths`` tokens, each prefilled alone."""
        return cls.of([cls.alone(subject, row, length) for row, length in enumerate(lengths)])

    @classmethod
    def alone(cls, subject: Subject, row: int, length: int) -> Batch:
        batch = cls(subject, subject.model.make_cache(), [row], [0])
        batch.feed([length])
        return batch

    @classmethod
    def of(cls, batches: list[Batch]) -> Batch:
        """One batch of rows that were alone."""
        layers = [
            layer[0].merge(list(layer)) for layer in zip(*(b.layers for b in batches), strict=True)
        ]
        rows, lengths = [b.rows[0] for b in batches], [b.lengths[0] for b in batches]
        return cls(batches[0].subject, layers, rows, lengths)

    def feed(self, counts: list[int], padding_on: str = "right", width: int = 0) -> None:
        """The next ``counts`` tokens of the rows, in one step of at least ``width`` columns."""
        width = max(width, *counts)
        ids, columns = [], []
        for row, length, count in zip(self.rows, self.lengths, counts, strict=True):
            following = _TEXTS[row, length : length + count].tolist()
            padding = [0] * (width - count)
            on_the_right = padding_on == "right"
            ids.append(following + padding if on_the_right else padding + following)
            columns.append(slice(0, count) if on_the_right else slice(width - count, width))
        made = self.subject.logits(mx.array(ids), self.layers)
        for index, (row, length, count) in enumerate(
            zip(self.rows, self.lengths, counts, strict=True)
        ):
            if count:
                whole = self.subject.whole[row, length : length + count]
                self.worst = max(self.worst, distance(made[index, columns[index]], whole))
        self.lengths = [n + count for n, count in zip(self.lengths, counts, strict=True)]

    def decode(self, steps: int = 12) -> None:
        for _ in range(steps):
            self.feed([1] * len(self.rows))

    def prepare(self, counts: list[int]) -> None:
        """Announce padding on the right."""
        for layer in self.layers:
            layer.prepare(lengths=counts, right_padding=[max(counts) - count for count in counts])

    def finalize(self) -> None:
        for layer in self.layers:
            layer.finalize()

    def extract(self, index: int) -> Batch:
        layers = [layer.extract(index) for layer in self.layers]
        return Batch(self.subject, layers, [self.rows[index]], [self.lengths[index]])

    def filter(self, indices: list[int]) -> None:
        for layer in self.layers:
            layer.filter(indices)
        self.rows = [self.rows[index] for index in indices]
        self.lengths = [self.lengths[index] for index in indices]

    def extend(self, other: Batch) -> None:
        for layer, others in zip(self.layers, other.layers, strict=True):
            layer.extend(others)
        self.rows = self.rows + other.rows
        self.lengths = self.lengths + other.lengths

    def rewind(self, count: int) -> None:
        for layer in self.layers:
            layer.trim(count)
        self.lengths = [length - count for length in self.lengths]


class CacheContract(PatchContract):
    """The contract of a patch on cache classes; tests get a ``subject`` of each model."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "subject" in metafunc.fixturenames:
            metafunc.parametrize("subject", models(self.host()), indirect=True)

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        return subject_of(self.host(), request.param)

    @classmethod
    def host(cls) -> str:
        return cls.id.partition(".")[0]

    def both(self, padding: list[int]) -> list:
        """An empty cache of each batch class, the sliding one with a window of 16."""
        caches = cache_module(self.host())
        return [caches.BatchKVCache(padding), caches.BatchRotatingKVCache(16, padding)]

    def untouched(self) -> Any:
        """What the caches of the host give where nothing is wrong, sliding and full."""
        caches = cache_module(self.host())
        return [
            _steps(caches.KVCache(), 1, (2, 1)),
            _steps(caches.RotatingKVCache(4), 1, (2, 1, 3, 1)),
            _life_of_a_batch(caches.BatchKVCache),
            _life_of_a_batch(functools.partial(caches.BatchRotatingKVCache, 4)),
        ]


@functools.cache
def subject_of(host: str, name: str) -> Subject:
    return Subject(models(host)[name](), cache_module(host))


def _steps(cache: Any, rows: int, counts: tuple[int, ...]) -> list:
    """What steps of ``counts`` tokens see; the same random keys each time."""
    seen = []
    for number, count in enumerate(counts):
        keys = mx.random.normal((rows, 1, count, 4), key=mx.random.key(number))
        window = getattr(cache, "max_size", None)
        seen += [
            cache.make_mask(count, return_array=True, window_size=window),
            mx.array(cache.offset),  # a copy: the host may count in place
            *cache.update_and_fetch(keys, -keys),
        ]
    return seen


def _life_of_a_batch(make: Callable[[list[int]], Any]) -> list:
    batch, other = make([1, 0]), make([0, 2])
    seen = _steps(batch, 2, (2, 1)) + _steps(other, 2, (3,))
    row = batch.extract(0)
    seen += [row.keys, row.values, row.offset, batch.trim(1)]
    batch.extend(other)
    batch.filter([0, 3, 2])
    batch.prepare(lengths=[3, 1, 2], right_padding=[0, 2, 1])
    seen += _steps(batch, 3, (3,))
    batch.finalize()
    return [*seen, *_steps(batch, 3, (1,) * 9), *batch.state[:2], batch.offset, batch.left_padding]
