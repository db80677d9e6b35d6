"""Any sequence of operations on a batch of KV caches gives every row what it would have alone.

A token's key says whose it is and where it stands. So it is known for every token of every step
what it has to see: itself and the tokens before it, as far as the window reaches, and at which
position RoPE has to rotate it.
"""

from __future__ import annotations

import copy
import importlib
import os
import tempfile
from types import ModuleType
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

WINDOW = 4
PADDING = -1
STRIDE = 1000  # an id is its row's number and its place in it; bfloat16 holds both up to 256

LENGTHS = st.sampled_from((1, 2, 3, 4, 5, 6, 9, 13))


class Row(NamedTuple):
    number: int
    length: int

    def ids(self, start: int, stop: int) -> list[int]:
        return [STRIDE * self.number + place for place in range(start, stop)]


def families() -> list[ModuleType]:
    """The modules that define cache classes; mlx-vlm before 0.6.4 has mlx-lm's."""
    found = []
    for host in ("mlx_lm", "mlx_vlm"):
        try:
            module = importlib.import_module(f"{host}.models.cache")
        except ImportError:
            continue
        if module.BatchKVCache.__module__ == module.__name__:
            found.append(module)
    return found


def feed(caches: list, tokens: list[list[int]]) -> None:
    """One step of two layers, a full one and a sliding one.

    Args:
        caches: the caches of the two layers.
        tokens: ids, one list per row, all of one length; PADDING where a row has none.
    """
    ids = np.array(tokens)
    keys = mx.array(np.stack(np.divmod(ids, STRIDE), axis=-1))[:, None].astype(mx.bfloat16)
    count = len(tokens[0])
    for cache, window in zip(caches, (None, WINDOW), strict=True):
        mask = cache.make_mask(count, return_array=True, window_size=window)
        captured = cache.offset
        fetched, values = cache.update_and_fetch(keys, -keys)
        assert fetched.dtype == values.dtype == keys.dtype
        assert mx.array_equal(fetched, -values)
        numbers, places = np.array(fetched.astype(mx.int32))[:, 0].transpose(2, 0, 1)
        fetched = STRIDE * numbers + places
        visible = np.ones((len(tokens), count, fetched.shape[1]), bool)
        if mask is not None:
            mask = np.array(mask)
            visible &= mask[:, 0] if mask.ndim == 4 else mask
        # read after the update, as attention that captured it before does
        offsets = np.broadcast_to(np.array(captured), len(tokens))
        for row, offset, keys_of_row, visible_of_row in zip(
            tokens, offsets, fetched, visible, strict=True
        ):
            for column, token in enumerate(row):
                if token == PADDING:
                    continue
                place = token % STRIDE
                first = 0 if window is None else max(0, place - window + 1)
                sees = sorted(keys_of_row[visible_of_row[column]].tolist())
                whose = type(cache).__name__
                assert sees == list(range(token - place + first, token + 1)), whose
                assert offset + column == place, whose


def alone(cache: ModuleType) -> list:
    return [cache.KVCache(), cache.RotatingKVCache(WINDOW)]


def batch_of(cache: ModuleType, left_padding: list[int]) -> list:
    return [cache.BatchKVCache(left_padding), cache.BatchRotatingKVCache(WINDOW, left_padding)]


def chunks(length: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, length)) for start in range(0, length, size)]


class Sequences(RuleBasedStateMachine):
    """The batch under test, and how many tokens of which rows are in it."""

    cache: ModuleType

    def __init__(self) -> None:
        super().__init__()
        self.caches: list = []
        self.rows: list[Row] = []
        self.made = 0

    def new_row(self, length: int = 0) -> Row:
        self.made += 1
        return Row(self.made, length)

    def advance(self, counts: list[int]) -> None:
        self.rows = [
            row._replace(length=row.length + count)
            for row, count in zip(self.rows, counts, strict=True)
        ]

    def keep(self, indices: list[int]) -> None:
        for cache in self.caches:
            cache.filter(indices)
        self.rows = [self.rows[index] for index in indices]

    def go_on_alone(self, caches: list, row: Row, steps: tuple[int, ...] = (1, 3, 1, 1)) -> None:
        for count in steps:
            feed(caches, [row.ids(row.length, row.length + count)])
            row = row._replace(length=row.length + count)

    def left_padded(self, lengths: list[int], size: int) -> tuple[list, list[Row]]:
        width = max(lengths)
        rows = [self.new_row(length) for length in lengths]
        caches = batch_of(self.cache, [width - length for length in lengths])
        tokens = [[PADDING] * (width - row.length) + row.ids(0, row.length) for row in rows]
        for start, stop in chunks(width, size):
            feed(caches, [row[start:stop] for row in tokens])
        return caches, rows

    # how a batch comes to be

    @initialize(lengths=st.lists(LENGTHS, min_size=1, max_size=4), size=LENGTHS)
    def prefill_with_padding_on_the_left(self, lengths, size):
        self.caches, self.rows = self.left_padded(lengths, size)

    @initialize(
        lengths=st.lists(LENGTHS, min_size=2, max_size=4), size=st.integers(1, 5), data=st.data()
    )
    def cancel_in_a_prefill_with_padding_on_the_left(self, lengths, size, data):
        width = max(lengths)
        self.rows = [self.new_row(length) for length in lengths]
        self.caches = batch_of(self.cache, [width - length for length in lengths])
        parts = chunks(width, size)
        cancelled_at = data.draw(st.sampled_from(parts), "cancelled at")
        for part in parts:
            tokens = [
                [PADDING] * (width - row.length) + row.ids(0, row.length) for row in self.rows
            ]
            feed(self.caches, [row[slice(*part)] for row in tokens])
            if part == cancelled_at:
                self.keep(data.draw(self.some_rows(), "kept"))

    @initialize(lengths=st.lists(LENGTHS, min_size=1, max_size=3), size=LENGTHS)
    def merge_rows_prefilled_alone(self, lengths, size):
        self.rows = [self.new_row(length) for length in lengths]
        singles = []
        for row in self.rows:
            singles.append(alone(self.cache))
            for start, stop in chunks(row.length, size):
                feed(singles[-1], [row.ids(start, stop)])
        self.merge(singles)

    def merge(self, singles: list) -> None:
        self.caches = [layer[0].merge(list(layer)) for layer in zip(*singles, strict=True)]

    # what happens to it

    def some_rows(self) -> st.SearchStrategy[list[int]]:
        indices = st.permutations(range(len(self.rows)))
        return st.tuples(indices, st.integers(1, len(self.rows))).map(lambda t: list(t[0][: t[1]]))

    @rule(steps=st.integers(1, 2 * WINDOW))
    def decode(self, steps):
        for _ in range(steps):
            feed(self.caches, [row.ids(row.length, row.length + 1) for row in self.rows])
            self.advance([1] * len(self.rows))

    @rule(count=st.integers(2, 5), data=st.data())
    def verify_a_draft_and_rewind(self, count, data):
        feed(self.caches, [row.ids(row.length, row.length + count) for row in self.rows])
        rejected = data.draw(st.integers(0, count - 1), "rejected")
        assert [cache.trim(rejected) for cache in self.caches] == [rejected] * 2
        self.advance([count - rejected] * len(self.rows))

    @rule(size=st.integers(1, 6), what=st.sampled_from(("", "extract", "filter")), data=st.data())
    def prefill_with_padding_on_the_right(self, size, what, data):
        counts = data.draw(st.lists(LENGTHS, min_size=len(self.rows), max_size=len(self.rows)))
        width = max(counts)
        padding = [width - count for count in counts]
        if any(padding):
            for cache in self.caches:
                cache.prepare(lengths=counts, right_padding=padding)
        parts = chunks(width, size)
        interrupted_at = data.draw(st.sampled_from(parts), "interrupted at")
        for part in parts:
            tokens = [
                row.ids(row.length, row.length + count) + [PADDING] * (width - count)
                for row, count in zip(self.rows, counts, strict=True)
            ]
            feed(self.caches, [row[slice(*part)] for row in tokens])
            if part != interrupted_at:
                continue
            if what == "extract":
                index = data.draw(st.integers(0, len(self.rows) - 1), "extracted")
                row, so_far = self.rows[index], min(part[1], counts[index])
                extracted = [cache.extract(index) for cache in self.caches]
                self.go_on_alone(extracted, row._replace(length=row.length + so_far))
            if what == "filter":
                indices = data.draw(self.some_rows(), "kept")
                self.keep(indices)
                counts = [counts[index] for index in indices]
        if any(padding):
            for cache in self.caches:
                cache.finalize()
        self.advance(counts)

    @rule(data=st.data())
    def extract_and_go_on_alone(self, data):
        index = data.draw(st.integers(0, len(self.rows) - 1), "extracted")
        self.go_on_alone([cache.extract(index) for cache in self.caches], self.rows[index])

    @rule(data=st.data(), with_a_new_row=st.booleans())
    def extract_and_merge_in_another_order(self, data, with_a_new_row):
        indices = data.draw(self.some_rows(), "merged")
        singles = [[cache.extract(index) for cache in self.caches] for index in indices]
        self.rows = [self.rows[index] for index in indices]
        if with_a_new_row:
            singles.append(alone(self.cache))
            self.rows.append(self.new_row())
        self.merge(singles)
        if with_a_new_row:
            self.decode(1)

    @precondition(lambda self: len(self.rows) < 5)
    @rule(
        lengths=st.lists(LENGTHS, min_size=1, max_size=2),
        size=LENGTHS,
        decoded=st.integers(0, WINDOW + 1),
        joins=st.booleans(),
    )
    def extend(self, lengths, size, decoded, joins):
        caches, rows = self.left_padded(lengths, size)
        for step in range(decoded):
            feed(caches, [row.ids(row.length + step, row.length + step + 1) for row in rows])
        rows = [row._replace(length=row.length + decoded) for row in rows]
        self.extend_by(caches, rows, joins)

    @precondition(lambda self: len(self.rows) < 5)
    @rule(count=st.integers(1, 2), joins=st.booleans())
    def extend_by_rows_without_tokens(self, count, joins):
        rows = [self.new_row() for _ in range(count)]
        self.extend_by(batch_of(self.cache, [0] * count), rows, joins)
        self.decode(1)

    def extend_by(self, caches: list, rows: list[Row], joins: bool) -> None:
        """The given batch joins this one, or this one joins the given."""
        if not joins:
            caches, self.caches = self.caches, caches
            rows, self.rows = self.rows, rows
        for cache, other in zip(self.caches, caches, strict=True):
            cache.extend(other)
        self.rows = self.rows + rows

    @rule(data=st.data())
    def filter(self, data):
        self.keep(data.draw(self.some_rows(), "kept"))

    @precondition(lambda self: all(cache.is_trimmable() for cache in self.caches))
    @rule(data=st.data())
    def trim(self, data):
        count = data.draw(st.integers(0, min(row.length for row in self.rows) - 1), "trimmed")
        assert [cache.trim(count) for cache in self.caches] == [count] * 2
        self.advance([-count] * len(self.rows))

    @rule()
    def save_and_load(self):
        if not hasattr(self.cache, "save_prompt_cache"):
            self.caches = [
                type(cache).from_state(cache.state, cache.meta_state) for cache in self.caches
            ]
            return
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "cache.safetensors")
            self.cache.save_prompt_cache(file, self.caches)
            self.caches = self.cache.load_prompt_cache(file)

    @invariant()
    def every_row_can_go_on(self):
        caches, rows = copy.deepcopy(self.caches), self.rows
        for count in (1, 2) if rows else ():
            feed(caches, [row.ids(row.length, row.length + count) for row in rows])
            rows = [row._replace(length=row.length + count) for row in rows]


@pytest.mark.parametrize("caches", families(), ids=lambda module: module.__name__)
def test_every_row_of_a_batch_sees_what_it_would_see_alone(caches):
    class OfThisFamily(Sequences):
        cache = caches

    run_state_machine_as_test(
        OfThisFamily,
        settings=settings(
            max_examples=80,
            stateful_step_count=8,
            derandomize=True,
            phases=(Phase.generate,),  # to shrink a failure takes minutes; 8 steps can be read
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("caches", families(), ids=lambda module: module.__name__)
@pytest.mark.parametrize("size", (1, 3, 7))
def test_a_row_alone_sees_its_window(caches, size):
    layers = alone(caches)
    row = Row(1, 30)
    for start, stop in chunks(row.length, size):
        feed(layers, [row.ids(start, stop)])
