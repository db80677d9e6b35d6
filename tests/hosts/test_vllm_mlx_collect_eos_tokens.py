"""Both engines of vllm-mlx start and stop with any form in which a folder names stop tokens."""

from __future__ import annotations

import asyncio
from importlib import import_module
from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import script, tokenizer
from tests.hosts.contract import PatchContract, patched
from tests.hosts.folders import BROKEN, EVERYWHERE, other_model, variant

ID = "vllm_mlx.collect_eos_tokens"
SAID = tokenizer.ids("so")
PAST = tokenizer.ids("un")  # said after the end of the turn, by a host that does not stop there

pytest.importorskip("vllm_mlx")


class TestCollectEosTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path):
        self.folder = tmp_path

    def untouched(self):
        host = import_module("vllm_mlx.utils.tokenizer")
        if not hasattr(host, "collect_eos_token_ids"):
            return []
        seen = []
        for content in EVERYWHERE.values():
            folder = str(other_model(self.folder, **content))
            given = SimpleNamespace(eos_token_id=1, eos_token_ids=[1, 7], name_or_path=folder)
            try:
                seen.append(host.collect_eos_token_ids(given))
                seen.append(host.collect_eos_token_ids(SimpleNamespace(), model_path=folder))
            except Exception as error:
                seen.append(repr(error))
        return [*seen, host.collect_eos_token_ids(SimpleNamespace(eos_token_id=1, name_or_path=""))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny.save("dense", tmp_path_factory.mktemp("gemma-4-tiny"))
    tokenizer.save(made)
    return made


@pytest.mark.parametrize("stop", [1, 106])
@pytest.mark.parametrize("content", [*EVERYWHERE.values(), {"generation": BROKEN["a list"]}])
def test_the_simple_engine_stops(folder, tmp_path, content, stop):
    from vllm_mlx.engine.simple import SimpleEngine

    async def run():
        engine = SimpleEngine(str(model), force_mllm=True)
        await engine.start()
        try:
            with script.says("vllm_mlx", [*SAID, stop, *PAST]):
                messages = [{"role": "user", "content": "hi"}]
                return await engine.chat(messages, max_tokens=8, temperature=0.0)
        finally:
            await engine.stop()

    model = variant(folder, tmp_path / "gemma-4-tiny", **content)
    with patched(ID):
        answer = asyncio.run(run())
    assert (answer.text, answer.finish_reason) == ("so", "stop")
