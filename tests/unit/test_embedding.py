"""Rows of an embedding table give their token ids back, exactly, or a clear error."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

mx = pytest.importorskip("mlx.core")
nn = pytest.importorskip("mlx.nn")

from mlx_gemma4_patches.gemma4 import embedding  # noqa: E402
from mlx_gemma4_patches.gemma4.embedding import find, is_traced, token_ids  # noqa: E402

PLAIN = (mx.float32, mx.float16, mx.bfloat16)
QUANTIZED = [("affine", bits, 32) for bits in (2, 3, 4, 5, 6, 8)]
QUANTIZED += [("affine", 4, 64), ("affine", 8, 128)]
QUANTIZED += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
FORMATS = PLAIN + tuple(QUANTIZED)


def plain_table(values) -> nn.Embedding:
    table = nn.Embedding(*values.shape)
    table.weight = mx.array(values)
    return table


def random_table(vocabulary: int, width: int, seed: int = 0) -> nn.Embedding:
    return plain_table(mx.random.normal((vocabulary, width), key=mx.random.key(seed)))


def numbers(rows: mx.array) -> np.ndarray:
    return np.array(rows.astype(mx.float32))


def lowest_ids(table, rows: mx.array) -> list[int]:
    """By comparing every row with every row of the table; -1 where there is none."""
    known = numbers(table(mx.arange(len(table.weight))))
    wanted = numbers(rows).reshape(-1, known.shape[-1])
    hits = [np.flatnonzero((known == row).all(-1)) for row in wanted]
    return [int(hit[0]) if len(hit) else -1 for hit in hits]


@st.composite
def tables(draw):
    """Tables with equal rows, zeros, negative zeros, and rows that differ in one value."""
    form = draw(st.sampled_from(FORMATS))
    width = draw(st.sampled_from((128, 256)) if isinstance(form, tuple) else st.integers(1, 200))
    vocabulary = draw(st.integers(1, 120))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    values = generator.choice(
        np.array([0.0, -0.0, 1.0, -2.0, 0.375], np.float32), (vocabulary, width)
    )
    if draw(st.booleans()):
        values += generator.standard_normal(values.shape).astype(np.float32)
    if draw(st.booleans()):  # few distinct rows
        values = values[generator.integers(0, min(4, vocabulary), vocabulary)]
    if draw(st.booleans()):  # all equal but in one value each
        values[:] = values[0]
        values[np.arange(vocabulary), generator.integers(0, width, vocabulary)] = 7.0
    values[generator.integers(0, vocabulary)] = draw(st.sampled_from((0.0, -0.0)))
    table = plain_table(values)
    if not isinstance(form, tuple):
        table.weight = table.weight.astype(form)
        return table
    mode, bits, group_size = form
    return table.to_quantized(group_size, bits, mode)


@settings(max_examples=150, deadline=None)
@given(table=tables(), data=st.data())
def test_rows_of_any_table_give_the_lowest_id_of_their_equals(table, data):
    vocabulary = len(table.weight)
    shape = data.draw(st.lists(st.integers(1, 5), max_size=3).map(tuple))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ids = mx.array(generator.integers(0, vocabulary, shape), mx.int32)
    rows = table(mx.atleast_1d(ids)).reshape(*shape, -1)  # mlx looks up no scalar
    found = token_ids(table, rows)
    assert found.shape == shape and found.dtype == mx.int32
    assert found.reshape(-1).tolist() == lowest_ids(table, rows)


@settings(max_examples=80, deadline=None)
@given(table=tables(), seed=st.integers(0, 2**32 - 1))
def test_foreign_rows_are_refused_with_their_positions(table, seed):
    generator = np.random.default_rng(seed)
    rows = table(mx.array(generator.integers(0, len(table.weight), (2, 4))))
    noise = mx.array(generator.standard_normal(rows.shape), mx.float32)
    is_noise = mx.array(generator.random((2, 4, 1)) < 0.3)
    rows = mx.where(is_noise, noise, rows)
    expected = lowest_ids(table, rows)
    missing = [[place // 4, place % 4] for place, id_ in enumerate(expected) if id_ < 0]
    if not missing:
        assert token_ids(table, rows).reshape(-1).tolist() == expected
        return
    with pytest.raises(ValueError, match=r"token ids .* per_layer_inputs") as error:
        token_ids(table, rows)
    assert f"{len(missing)} of 8 " in str(error.value)
    assert [list(map(int, at)) for at in re.findall(r"\[(\d), (\d)\]", str(error.value))] == missing


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_every_token_of_a_vocabulary_is_found(form):
    table = random_table(3000, 128)
    table.weight[77] = table.weight[2999]
    if isinstance(form, tuple):
        mode, bits, group_size = form
        table = table.to_quantized(group_size, bits, mode)
    else:
        table.weight = table.weight.astype(form)
    rows = table(mx.arange(3000))
    found = token_ids(table, rows)
    assert found[2999].item() == 77
    assert found.tolist() == lowest_ids(table, rows)


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_a_copy_in_another_dtype_is_found_where_it_is_exactly_a_row(dtype):
    table = random_table(50, 96)
    table.weight = table.weight.astype(dtype)
    rows = table(mx.array([[3, 4], [5, 3]])).astype(mx.float32)
    assert token_ids(table, rows).tolist() == [[3, 4], [5, 3]]
    rows[1, 0, 95] += 2.0**-20
    with pytest.raises(ValueError, match=r"1 of 4 .* at \[1, 0\],"):
        token_ids(table, rows)


def test_a_narrower_dtype_that_rounded_the_row_is_refused():
    table = random_table(50, 96)
    with pytest.raises(ValueError, match="3 of 3"):
        token_ids(table, table(mx.arange(3)).astype(mx.bfloat16))


def test_nan_is_never_found_even_in_a_table_with_nan():
    table = random_table(50, 96)
    table.weight[7, 3] = mx.nan
    table.weight[8, 3] = mx.nan
    assert token_ids(table, table(mx.array([6, 9]))).tolist() == [6, 9]
    with pytest.raises(ValueError, match=r"2 of 3 .* at \[0\], \[2\],"):
        token_ids(table, table(mx.array([7, 9, 8])))


def test_long_lists_of_positions_are_cut():
    table = random_table(50, 96)
    with pytest.raises(ValueError, match=r"30 of 30 .*\[7\], \.\.\.,"):
        token_ids(table, mx.zeros((30, 96)))


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"width 95 .* width 96"):
        token_ids(random_table(50, 96), mx.zeros((1, 95)))


def test_zero_has_no_sign():
    values = np.ones((3, 64), np.float32)
    values[1, ::2], values[2, ::2] = -0.0, 0.0
    table = plain_table(values)
    assert token_ids(table, table(mx.arange(3))).tolist() == [0, 1, 1]


@pytest.mark.parametrize("column", (0, 1, 500, 511))
def test_rows_that_differ_in_one_value_are_told_apart(column):
    values = np.ones((300, 512), np.float32)
    values[:, column] = np.arange(300)
    table = plain_table(values)
    assert token_ids(table, table(mx.arange(300))).tolist() == list(range(300))


@pytest.mark.parametrize("width", (16, 512))
def test_rows_that_share_a_hash_are_told_apart(monkeypatch, width):
    seeds = []

    def colliding(count, seed):
        seeds.append(seed)
        return mx.zeros(count, mx.uint64) if seed < 5 else honest(count, seed)

    honest = embedding._random_odd
    monkeypatch.setattr(embedding, "_random_odd", colliding)
    table = random_table(300, width)
    assert token_ids(table, table(mx.arange(300))).tolist() == list(range(300))
    assert seeds == list(range(6))


def test_a_new_weight_is_a_new_table():
    table = random_table(50, 96)
    before = table(mx.arange(50))
    token_ids(table, before)
    table.weight = table.weight[::-1]
    assert token_ids(table, before).tolist() == list(range(50))[::-1]
    table.update({"weight": before})
    assert token_ids(table, before).tolist() == list(range(50))


def test_new_scales_are_a_new_table():
    rows = random_table(50, 128).weight
    rows[5] = 2 * rows[9]  # the same quantized values under other scales
    table = plain_table(rows).to_quantized(64, 4)
    assert token_ids(table, table(mx.array([5, 9]))).tolist() == [5, 9]
    held = dict(table)
    for name in ("scales", "biases"):
        changed = mx.array(table[name])
        changed[5] = changed[9]
        table[name] = changed
    assert token_ids(table, table(mx.array([5, 9]))).tolist() == [5, 5]
    table.update(held)
    assert token_ids(table, table(mx.array([5, 9]))).tolist() == [5, 9]


def test_a_table_changed_in_place_is_read_again():
    table = random_table(50, 96)
    token_ids(table, table(mx.arange(50)))
    table.weight[9] = mx.ones(96)
    assert token_ids(table, mx.ones((1, 96))).tolist() == [9]


def test_the_table_is_hashed_once(monkeypatch):
    table = random_table(50, 96)
    token_ids(table, table(mx.arange(50)))
    monkeypatch.setattr(embedding._Index, "_hash_table", None)
    assert token_ids(table, table(mx.array([4]))).tolist() == [4]


def test_neither_the_table_nor_its_hashes_are_kept():
    gc.collect()
    known = len(embedding._indexes)
    table = random_table(50, 96).to_quantized(32, 4)
    token_ids(table, table(mx.arange(50)))
    assert len(embedding._indexes) == known + 1
    alive = [weakref.ref(table), weakref.ref(table.weight)]
    del table
    gc.collect()
    assert [ref() for ref in alive] == [None, None]
    assert len(embedding._indexes) == known


def test_a_table_keeps_its_parameters_and_can_be_copied_and_pickled():
    table = random_table(50, 96)
    rows = table(mx.arange(50))
    token_ids(table, rows)
    assert list(table.parameters()) == ["weight"]
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        twin.weight = twin.weight[::-1]
        assert token_ids(twin, rows).tolist() == list(range(50))[::-1]
    assert token_ids(table, rows).tolist() == list(range(50))


def test_a_table_hashed_in_one_thread_serves_another():
    table = random_table(50, 96)
    rows = table(mx.arange(50))
    mx.eval(table.parameters(), rows)
    found = []

    def look_up():
        with mx.stream(mx.new_stream(mx.default_device())):
            found.append(token_ids(table, rows).tolist())

    for _ in range(2):
        thread = threading.Thread(target=look_up)
        thread.start()
        thread.join()
    found.append(token_ids(table, rows).tolist())
    assert found == [list(range(50))] * 3


def test_the_random_state_is_left_alone():
    mx.random.seed(3)
    expected = mx.random.normal((4,)).tolist()
    table = random_table(50, 96)
    mx.random.seed(3)
    token_ids(table, table(mx.arange(50)))
    assert mx.random.normal((4,)).tolist() == expected


def test_the_memory_does_not_grow_with_vocabulary_times_tokens():
    table = random_table(65536, 64)
    rows = table(mx.arange(1024))
    mx.eval(table.parameters(), rows)

    def peak() -> float:
        base = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(token_ids(table, rows))
        return mx.get_peak_memory() - base

    assert peak() < 32e6  # with the hashing; one bool each would be 67 MB
    assert peak() < 4e6


def test_compiled_lookups_mask_what_they_cannot_refuse():
    table = random_table(50, 96)
    mx.eval(table.parameters())
    rows = mx.concatenate([table(mx.array([4, 5])), mx.ones((1, 96))])
    ids, found = mx.compile(lambda rows: find(table, rows))(rows)
    assert found.tolist() == [True, True, False]
    assert ids.tolist()[:2] == [4, 5]


def test_lookups_take_no_part_in_gradients():
    table = random_table(50, 96)
    ids = mx.array([4, 5, 4])
    rows = table(ids)

    def loss(rows, look_up):
        return (table(look_up(rows)) * rows).sum()

    def masked(rows):
        ids, found = find(table, rows)
        return table(mx.where(found, ids, 0))

    for step in (mx.grad(loss), nn.value_and_grad(table, loss)):
        found, expected = step(rows, lambda r: token_ids(table, r)), step(rows, lambda r: ids)
        if isinstance(found, tuple):
            found, expected = found[1]["weight"], expected[1]["weight"]
        assert mx.array_equal(found, expected)
    by_rows = mx.grad(lambda rows: (masked(rows) * rows).sum())
    assert mx.array_equal(by_rows(rows), rows)


def test_tracing_is_seen():
    seen = []

    def look(x):
        seen.append(is_traced(x))
        return x * 2

    for transform in (mx.compile, mx.vmap, lambda f: f):
        mx.eval(transform(look)(mx.ones((2, 2))))
    mx.eval(mx.grad(lambda x: look(x).sum())(mx.ones((2, 2))))
    assert seen == [True, True, False, False]
