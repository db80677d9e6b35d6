"""vllm-mlx's own Gemma 4 attention, where it fits and where it does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from mlx_gemma4_patches.surgery import Surgery
from tests.hosts.contract import PatchContract, load, record

ID = "vllm_mlx.attention_patch_mismatch"


class TestAttentionPatchMismatch(PatchContract):
    id = ID

    def untouched(self):
        language_model = model("dense").language_model
        return language_model(mx.array([tiny.prompt(20)])).logits  # as mlx-vlm runs alone


@pytest.fixture
def taken_over() -> Iterator[None]:
    """After vllm-mlx has put its attention in place, or has been kept from it."""
    pytest.importorskip("vllm_mlx")
    language = pytest.importorskip("mlx_vlm.models.gemma4.language")
    before = dict(vars(language.Attention))
    with contextlib.suppress(ModuleNotFoundError):  # vllm-mlx 0.2.7 has none
        from vllm_mlx.patches.gemma4_mllm import patch_gemma4_attention_for_batching

        patch_gemma4_attention_for_batching()
        patch_gemma4_attention_for_batching()  # every engine that starts calls it
    yield
    language.Attention.__call__ = before["__call__"]
    if "_batch_patched" in vars(language.Attention):
        del language.Attention._batch_patched


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_with_vllm_mlx_attention_in_place_a_batch_decodes_as_its_rows_alone(
    shape: str, taken_over: None
) -> None:
    language_model = model(shape).language_model
    prompts = [mx.array([tiny.prompt(n, seed=n)]) for n in (30, 12)]
    steps = mx.array([tiny.prompt(8, seed=row) for row in range(2)])
    alone = []
    for prompt, row in zip(prompts, steps, strict=True):
        cache = language_model.make_cache()
        mx.eval(language_model(prompt, cache=cache).logits)
        alone.append([language_model(t[None, None], cache=cache).logits[0, 0] for t in row])

    caches = [language_model.make_cache() for _ in prompts]
    for prompt, cache in zip(prompts, caches, strict=True):
        mx.eval(language_model(prompt, cache=cache).logits)
    together = [layer[0].merge(list(layer)) for layer in zip(*caches, strict=True)]
    for i in range(steps.shape[1]):
        logits = language_model(steps[:, i : i + 1], cache=together).logits[:, 0]
        wanted = mx.stack([row[i] for row in alone])
        assert mx.abs(logits - wanted).max().item() < 1e-3


def test_attention_is_replaced_only_by_one_of_the_same_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    takeover = pytest.importorskip("vllm_mlx.patches.gemma4_mllm")
    from mlx_vlm.models.gemma4.language import Attention

    def as_in_0_4_4(self, x, mask=None, cache=None): ...

    def as_in_0_5_0(self, x, mask=None, cache=None, shared_kv=None, offset=None): ...

    def as_in_none_yet(self, x, mask=None, cache=None, shared_kv=None, offset=None, sinks=None): ...

    surgery = Surgery(ID, ())
    if not record(ID).state.is_on:  # not needed here, but so it will be on releases to come
        load(ID).apply(surgery)
    replaced = []
    try:
        for theirs in (as_in_0_4_4, as_in_0_5_0, as_in_none_yet):
            monkeypatch.setattr(Attention, "__call__", theirs)
            monkeypatch.setattr(Attention, "_batch_patched", False, raising=False)
            takeover.patch_gemma4_attention_for_batching()
            replaced.append(Attention.__call__ is not theirs)
    finally:
        surgery.undo()
    assert replaced in ([True, False, False], [False, True, False])
