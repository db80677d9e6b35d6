"""vllm_mlx.prefix_reuse_disk: after a restart a conversation goes on from the disk."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_map

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from mlx_gemma4_patches.hosts.vllm_mlx import disk
from mlx_gemma4_patches.hosts.vllm_mlx.batches import scheduler
from tests.hosts import batching, conversations, reuse
from tests.hosts.contract import PatchContract, equal, skip_unless_needed

pytest.importorskip("vllm_mlx.ssd_cache", reason="no prefix cache on disk in this vllm-mlx")
pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

_ID = "vllm_mlx.prefix_reuse_disk"
_BATCHED, _TEXT = "vllm_mlx batched SSD", "vllm_mlx text batched SSD"
_IDS = tiny.prompt(260)
_FIRST, _SECOND = 120, 240  # what is kept of them


class TestPrefixReuseDisk(PatchContract):
    id = _ID

    def untouched(self) -> Any:
        """What another model's cache writes to the disk, finds there and goes on from."""
        from mlx_lm.models.cache import KVCache
        from mlx_lm.models.llama import Model, ModelArgs
        from vllm_mlx.request import Request, SamplingParams
        from vllm_mlx.scheduler import Scheduler, SchedulerConfig

        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5}
        llama = Model(ModelArgs(model_type="llama", **sizes))
        layers = [KVCache(), KVCache()]
        for layer in layers:
            layer.update_and_fetch(mx.ones((1, 2, 150, 16)), mx.ones((1, 2, 150, 16)))
        with tempfile.TemporaryDirectory() as folder:
            config = SchedulerConfig(ssd_cache_dir=folder)
            made = Scheduler(llama, None, config)
            stored = made.memory_aware_cache.store(_IDS[:150], layers)
            made.memory_aware_cache._evict_lru()
            _wait_for(made._ssd_tier)
            made.close_ssd_tier()
            made = Scheduler(llama, None, config)
            request = Request("0", _IDS, SamplingParams(max_tokens=1))
            made.add_request(request)
            made._try_promote_ssd_pending()
            made.close_ssd_tier()
        found = [layer.state for layer in request.prompt_cache]
        return [stored, request.cached_tokens, request.remaining_tokens, found]


@contextlib.contextmanager
def _opened(folder: Path, model: Any) -> Iterator[disk.TieredStore]:
    """What a server of ``model`` keeps beside the tier in a folder, until it is stopped."""
    from vllm_mlx.memory_cache import MemoryAwarePrefixCache
    from vllm_mlx.ssd_cache import SSDCacheConfig, SSDCacheTier

    skip_unless_needed(_ID)
    tier = SSDCacheTier(SSDCacheConfig(cache_dir=str(folder)))
    tier.start_writer()
    tier.reconcile()
    cache = MemoryAwarePrefixCache(model)
    cache.set_ssd_tier(tier)
    try:
        yield disk.TieredStore(cache, model)
    finally:
        _wait_for(tier)
        tier.close()


def _wait_for(tier: Any) -> None:
    """Some releases leave what is queued when they close."""
    while not tier._spill_queue.empty():
        time.sleep(0.01)


def _model(dtype: mx.Dtype = mx.float32) -> Any:
    made = text_model("dense")
    made.update(tree_map(lambda x: x.astype(dtype), made.parameters()))
    return made


def _keep(store: disk.TieredStore, model: Any) -> list[Any]:
    """Read the prompt and keep two places of it; returns the caches of the second."""
    caches = model.make_cache()
    for begin, end in ((0, _FIRST), (_FIRST, _SECOND)):
        model(mx.array([_IDS[begin:end]]), cache=caches)
        store.add("text", _IDS[:end], caches)
    return store.find("text", _IDS)[1]


def _states(caches: list[Any]) -> list[Any]:
    return [(c.keys, c.values, c.offset, getattr(c, "_idx", None), type(c)) for c in caches]


@pytest.mark.parametrize("block", [4096, 120, 50], ids=lambda block: f"blocks of {block}")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
def test_after_a_restart_the_caches_are_those_that_were_kept(
    block: int, dtype: mx.Dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_BLOCK", block)
    with _opened(tmp_path, _model(dtype)) as store:
        kept = _states(_keep(store, _model(dtype)))
    model = _model(dtype)
    with _opened(tmp_path, model) as store:
        assert store.bring("text", _IDS)
        assert not store.bring("text", _IDS)  # is in memory now
        length, found = store.find("text", _IDS)
        assert length == _SECOND
        assert equal(_states(found), kept)
        store.trim(count=0)
        assert store.bring("text", _IDS[: _SECOND - 1])  # another question
        assert store.find("text", _IDS)[0] == _FIRST
        assert not store.bring("text", [9, *_IDS])


def test_rows_of_full_attention_are_written_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "_BLOCK", 50)
    model = _model()
    with _opened(tmp_path, model) as store:
        _keep(store, model)
    # 2 of the first place, 2 of the second, and the places
    assert len(list((tmp_path / "data").iterdir())) == 6


def test_rows_that_the_host_has_dropped_are_processed_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "_BLOCK", 100)
    model = _model()
    with _opened(tmp_path, model) as store:
        _keep(store, model)
    with _opened(tmp_path, model) as store:
        *_, (_, last) = store._blocks(_IDS[:_SECOND])
        store._cache._ssd_tier._index.delete_entry(last)
        assert store.bring("text", _IDS)
        assert store.find("text", _IDS)[0] == _FIRST


def _truncated(entry: Path, other: Path) -> None:
    file = entry / "layer_0.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _zeroed(entry: Path, other: Path) -> None:
    """As a machine that lost its power leaves it."""
    file = entry / "layer_0.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


def _garbage(entry: Path, other: Path) -> None:
    for file in entry.iterdir():
        file.write_bytes(b"\xc5 garbage" * 99)


def _layer_of_another(entry: Path, other: Path) -> None:
    shutil.copy(other / "layer_1.safetensors", entry)


def _all_of_another(entry: Path, other: Path) -> None:
    shutil.rmtree(entry)
    shutil.copytree(other, entry)


def _of_another_program(entry: Path, other: Path) -> None:
    (entry / "manifest.json").write_text(json.dumps({"made_by": "another program"}))


def _without_a_layer(entry: Path, other: Path) -> None:
    (entry / "layer_1.safetensors").unlink()


def _gone(entry: Path, other: Path) -> None:
    shutil.rmtree(entry)


@pytest.mark.parametrize(
    "damage",
    [
        _truncated,
        _zeroed,
        _garbage,
        _layer_of_another,
        _all_of_another,
        _of_another_program,
        _without_a_layer,
        _gone,
    ],
)
def test_what_is_damaged_is_left_out_and_the_place_before_it_found(
    damage: Callable[[Path, Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, others = tmp_path / "mine", tmp_path / "others"
    model, other = _model(), _other_model()
    with _opened(others, other) as store:
        _keep(store, other)
        there = _entry(store)
    with _opened(mine, model) as store:
        kept = _states(_keep(store, model))
        path = _entry(store)
        assert equal(_states(store.find("text", _IDS)[1]), kept)
    caplog.set_level(logging.WARNING)
    with _opened(mine, model) as store:
        damage(mine / "data" / path, others / "data" / there)
        assert store.bring("text", _IDS)
        assert store.find("text", _IDS)[0] == _FIRST
        assert sum(r.name == "mlx_gemma4_patches" for r in caplog.records) <= 1
        before = len(caplog.records)
        store.trim(count=0)
        assert store.bring("text", _IDS)
        assert len(caplog.records) == before  # it is looked at once


def _entry(store: disk.TieredStore) -> str:
    tier = store._cache._ssd_tier
    _wait_for(tier)
    key = store._place(_IDS[:_SECOND])
    while (found := tier.lookup_ssd(key)) is None:
        time.sleep(0.01)
    return found["file_path"]


def _other_model() -> Any:
    """Of the same shapes and settings; few of its weights differ."""
    made = _model()
    attention = made.layers[0].self_attn.q_proj
    attention.weight = attention.weight * 1.5
    return made


def test_another_checkpoint_has_rows_of_its_own(tmp_path: Path) -> None:
    model, other = _model(), _other_model()
    with _opened(tmp_path, model) as store:
        kept = _states(_keep(store, model))
    with _opened(tmp_path, other) as store:
        assert not store.bring("text", _IDS)
        others = _states(_keep(store, other))
    assert not equal(others, kept)
    for made, wanted in ((model, kept), (other, others)):
        with _opened(tmp_path, made) as store:
            assert store.bring("text", _IDS)
            assert equal(_states(store.find("text", _IDS)[1]), wanted)


def test_what_the_host_looks_for_is_never_found(tmp_path: Path) -> None:
    model = _model()
    with _opened(tmp_path, model) as store:
        _keep(store, model)
    with _opened(tmp_path, model) as store:
        assert store._cache.check_ssd(_IDS) is None


@pytest.mark.parametrize("kept", ["0", "1GB"])
def test_what_the_host_has_written_without_the_patches_is_not_read(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_mlx.request import Request, SamplingParams

    monkeypatch.setenv("MLX_GEMMA4_PATCHES_PREFIX_BYTES", kept)
    model = _model()
    caches = model.make_cache()
    model(mx.array([_IDS[:_SECOND]]), cache=caches)
    with _opened(tmp_path, model) as store:
        store._cache._ssd_tier.enqueue_spill(tuple(_IDS[:_SECOND]), caches, 1)
    made = scheduler(ssd_cache_dir=str(tmp_path))
    request = Request("0", _IDS, SamplingParams(max_tokens=1))
    made.add_request(request)
    assert request.cache_hit_type == "ssd_pending"
    made._schedule_waiting()
    made.close_ssd_tier()
    assert request.cached_tokens == 0


@pytest.mark.parametrize(
    ("route", "patch_id"),
    [(_BATCHED, "vllm_mlx.prefix_reuse"), (_TEXT, "vllm_mlx.prefix_reuse_text")],
)
def test_the_first_turn_after_a_restart_processes_what_is_new_in_it(
    route: str, patch_id: str, tmp_path: Path
) -> None:
    for needed in (_ID, patch_id):
        skip_unless_needed(needed)
    how = reuse.ROUTES[route]
    with reuse.client(how, tmp_path / "model") as made:
        conversations.chat(made.ask)
        _when_written(tmp_path / "model-ssd")
    with reuse.running(made, how):
        made.ask("i1", conversations.restarted(), conversations.words("i", 12))
    reuse.check(made.turns)
    for file in (tmp_path / "model-ssd" / "data").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-50])
    with reuse.running(made, how):
        made.ask("i2", conversations.restarted(), conversations.words("i", 12))
    again = made.turns[-1]
    assert not again.wrong
    assert again.processed == len(again.prompt)


def test_after_a_restart_another_picture_is_another(tmp_path: Path) -> None:
    for needed in (_ID, "vllm_mlx.prefix_reuse"):
        skip_unless_needed(needed)
    how = reuse.ROUTES[_BATCHED]

    def ask(tag: str, seed: int) -> None:
        system = {"role": "system", "content": conversations.words("p", 130)}
        shown = batching.message("p u1", batching.image(seed))
        made.ask(tag, [system, shown], conversations.words("p a1", 14))

    with reuse.client(how, tmp_path / "model") as made:
        ask("p", 0)
        _when_written(tmp_path / "model-ssd")
    with reuse.running(made, how):
        ask("the same", 0)
        ask("another", 1)
    reuse.check(made.turns)
    _, same, another = made.turns
    assert same.new == 1 < another.new


def _when_written(folder: Path) -> None:
    """Wait until the server's thread that writes is done."""
    before, now = -1, 0
    while now == 0 or now != before:
        time.sleep(0.5)
        before, now = now, sum(1 for _ in (folder / "data").rglob("*"))
