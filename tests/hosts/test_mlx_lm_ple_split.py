"""mlx_lm.ple_split: a device's limit for one buffer does not keep E2B from loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.gemma4.split_table import NAME
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import checkpoints, tokenizer
from tests.hosts.contract import PatchContract, equal, patched, stock
from tests.hosts.parity import reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm import convert, utils
from mlx_lm.generate import generate_step

ID = "mlx_lm.ple_split"


@contextmanager
def device(largest_buffer: int | None) -> Iterator[None]:
    """A device that says to take no larger buffer; None: it says nothing of buffers."""
    original = mx.device_info
    told = {key: value for key, value in original().items() if key != "max_buffer_length"}
    if largest_buffer is not None:
        told["max_buffer_length"] = largest_buffer
    mx.device_info = lambda *args: told
    try:
        yield
    finally:
        mx.device_info = original


def bf16(folder: Path) -> Path:
    return tiny.save("e2b", folder, dtype=mx.bfloat16)


def with_bits(folder: Path, bits: int) -> Path:
    return checkpoints.change(
        tiny.save("e2b", folder, dtype=mx.bfloat16),
        partial(checkpoints.quantization, bits=bits),
        partial(checkpoints.quantized, bits=bits),
    )


def all_but_the_table(folder: Path) -> Path:
    def tensors(old: checkpoints.Tensors) -> checkpoints.Tensors:
        made = checkpoints.quantized(old, 4)
        plain = checkpoints.host_names(old)
        return {
            **{name: value for name, value in made.items() if NAME not in name},
            **{name: value for name, value in plain.items() if NAME in name},
        }

    return checkpoints.change(bf16(folder), partial(checkpoints.quantization, bits=4), tensors)


def text_only(folder: Path) -> Path:
    return checkpoints.change(bf16(folder), checkpoints.text_only, checkpoints.text_tensors)


def in_shards(folder: Path) -> Path:
    tensors = mx.load(str(bf16(folder) / "model.safetensors"))
    mx.eval(tensors)
    for i, is_table in enumerate((False, True), 1):
        shard = {name: value for name, value in tensors.items() if (NAME in name) is is_table}
        mx.save_safetensors(str(folder / f"model-0000{i}-of-00002.safetensors"), shard)
    (folder / "model.safetensors").unlink()
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "float32": partial(tiny.save, "e2b"),
    "bfloat16": bf16,
    "4-bit": partial(with_bits, bits=4),
    "8-bit": partial(with_bits, bits=8),
    "all but the table 4-bit": all_but_the_table,
    "text model alone": text_only,
    "in shards": in_shards,
}


class TestPleSplit(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def untouched(self) -> Any:
        seen: list[Any] = []
        ids = reference("e2b")["ids_40"][None]
        with device(1):  # no Gemma 4 without per-layer inputs has anything to split
            for shape in ("moe", "dense"):
                seen.append(utils.load_model(tiny.save(shape, self.folder / shape))[0](ids))
        for limit in (None, 1 << 40):
            with device(limit):
                model, config = utils.load_model(tiny.save("e2b", self.folder / "e2b"))
                seen += [model(ids), config, [name for name, _ in tree_flatten(model.parameters())]]
        utils.save_model(self.folder / "llama", other_models.llama())
        return [*seen, mx.load(str(self.folder / "llama" / "model.safetensors"))]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def table_of(model: nn.Module) -> nn.Module:
    return getattr(model, "language_model", model).model[NAME]


def size(folder: Path) -> int:
    """Bytes of the table's largest tensor."""
    return max(
        tensor.nbytes
        for file in folder.glob("model*.safetensors")
        for name, tensor in mx.load(str(file)).items()
        if NAME in name
    )


@pytest.mark.parametrize(
    ("form", "pieces"), [*((form, 2) for form in FORMS), ("bfloat16", 7), ("4-bit", 3)]
)
def test_in_pieces_the_model_says_exactly_what_it_says_in_one(
    tmp_path: Path, form: str, pieces: int
) -> None:
    folder = FORMS[form](tmp_path)
    ids = mx.array([tiny.prompt(9), tiny.prompt(9, seed=1)])
    with device(None):
        whole, _ = utils.load_model(folder)
    limit = -(-size(folder) // pieces)
    with device(limit):
        split, _ = utils.load_model(folder)
        assert equal(split(ids), whole(ids))
    parts = table_of(split).parts
    # a piece has whole rows, so it may take one piece more
    assert pieces <= len(parts) <= pieces + 1
    for part in parts:
        assert type(part) is type(table_of(whole))
        assert all(value.nbytes <= limit for value in part.values() if isinstance(value, mx.array))


def test_it_generates_what_transformers_generates(tmp_path: Path) -> None:
    expected, folder = reference("e2b"), tiny.save("e2b", tmp_path)
    with device(size(folder) // 2):
        model, _ = utils.load_model(folder)
        steps = generate_step(expected["ids_40"], model, max_tokens=expected["greedy_40"].size)
        assert [token for token, _ in steps] == expected["greedy_40"].tolist()


def test_a_table_that_just_fits_stays_whole(tmp_path: Path) -> None:
    folder = bf16(tmp_path)
    with device(size(folder)):
        model, _ = utils.load_model(folder)
    assert type(table_of(model)) is nn.Embedding


def test_loading_takes_no_more_memory_than_without_the_limit(tmp_path: Path) -> None:
    folder = tiny.save("e2b", tmp_path)

    def peak(limit: int | None) -> int:
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        with device(limit):
            utils.load_model(folder)
        return mx.get_peak_memory() - before

    whole = peak(None)
    assert whole > 4 * size(folder)  # the counter counts
    assert peak(size(folder) // 2) <= 1.02 * whole


def test_lazily_loaded_it_is_the_same(tmp_path: Path) -> None:
    folder, ids = bf16(tmp_path), mx.array([tiny.prompt(12)])
    with device(None):
        whole, _ = utils.load_model(folder)
    with device(size(folder) // 2):
        split, _ = utils.load_model(folder, lazy=True)
        assert equal(split(ids), whole(ids))


def test_it_is_saved_whole_and_stays_in_pieces(tmp_path: Path) -> None:
    folder, saved = bf16(tmp_path / "original"), tiny.save("e2b", tmp_path / "saved")
    (saved / "model.safetensors").unlink()
    ids = mx.array([tiny.prompt(12)])
    with device(size(folder) // 2):
        model, _ = utils.load_model(folder)
        utils.save_model(saved, model)
        said = model(ids)
    assert len(table_of(model).parts) == 2
    with stock(ID):
        assert equal(utils.load_model(saved)[0](ids), said)


def test_a_conversion_on_such_a_device_loads_on_any(tmp_path: Path) -> None:
    folder = tiny.save("e2b", tmp_path / "hf")
    tokenizer.save(folder)
    with device(size(folder) // 2):
        convert(str(folder), str(tmp_path / "mlx"), quantize=True, q_bits=8, q_group_size=64)
    with stock(ID):
        model, _ = utils.load_model(tmp_path / "mlx")
    plain = text_model("e2b")
    nn.quantize(plain, 64, 8)
    ids = mx.array([tiny.prompt(12)])
    assert equal(model(ids), plain(ids))


def test_frozen_it_has_nothing_to_train(tmp_path: Path) -> None:
    folder = bf16(tmp_path)
    with device(size(folder) // 2):
        model, _ = utils.load_model(folder)
    model.freeze()
    assert not tree_flatten(model.trainable_parameters())
    table_of(model).unfreeze()
    assert len(tree_flatten(model.trainable_parameters())) == 2


def test_a_wrong_table_is_refused_as_ever(tmp_path: Path) -> None:
    def narrower(old: checkpoints.Tensors) -> checkpoints.Tensors:
        return {name: v[:, :64] if NAME in name else v for name, v in old.items()}

    folder = checkpoints.change(tiny.save("e2b", tmp_path), tensors=narrower)
    with device(size(folder) // 2), pytest.raises(ValueError, match="shape"):
        utils.load_model(folder)
