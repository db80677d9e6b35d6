"""vllm-mlx stops where a Gemma 4 model folder says, whichever file says it and in whatever form."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import metal, script, tokenizer
from tests.hosts.contract import PatchContract, patched
from tests.hosts.folders import BROKEN, EVERYWHERE, other_model, variant

ID = "vllm_mlx.stop_tokens"
SAID = tokenizer.ids("so")
PAST = tokenizer.ids("un")  # said after the end of the turn, by a host that does not stop there
LIMIT = 8
PATIENCE = 60  # seconds

pytest.importorskip("vllm_mlx")


def stops(folder, own=1):
    """The ids at which continuous batching stops the model in ``folder``, by a tokenizer's own."""
    from vllm_mlx.mllm_scheduler import MLLMScheduler

    given = SimpleNamespace(eos_token_id=own, eos_token_ids=[own], name_or_path=str(folder))
    scheduler = SimpleNamespace(processor=SimpleNamespace(tokenizer=given))
    return MLLMScheduler._get_stop_tokens(scheduler)


class TestStopTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path):
        self.folder = tmp_path

    def untouched(self):
        seen = []
        for content in EVERYWHERE.values():
            try:
                seen.append(stops(other_model(self.folder, **content)))
            except Exception as error:
                seen.append(repr(error))
        return [*seen, stops("")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny.save("dense", tmp_path_factory.mktemp("gemma-4-tiny"))
    tokenizer.save(made)
    return made


@pytest.mark.parametrize("case", EVERYWHERE)
def test_all_ids_that_the_folder_names_stop(folder, tmp_path, case):
    with patched(ID):
        assert stops(variant(folder, tmp_path, **EVERYWHERE[case])) == {1, 106, 50}


def test_an_end_that_the_tokenizer_was_given_later_is_kept(folder):
    with patched(ID):
        assert stops(folder, own=7) == {1, 106, 50, 7}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_generation_config_leaves_the_other_files_their_say(folder, tmp_path, case):
    with patched(ID):
        assert stops(variant(folder, tmp_path, generation=BROKEN[case])) == {1, 106}


def test_requests_batched_together_stop(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(mx.fast, "metal_kernel", mx.fast.metal_kernel)  # to be put back
    metal.stand_in()
    from vllm_mlx.engine.batched import BatchedEngine

    async def answers(engine):
        requests = [
            engine.chat([{"role": "user", "content": text}], max_tokens=LIMIT, temperature=0.0)
            for text in ("hi", "hi there")
        ]
        return await asyncio.wait_for(asyncio.gather(*requests), PATIENCE)

    async def run():
        model = variant(folder, tmp_path / "gemma-4-tiny", **EVERYWHERE["text_config alone"])
        engine = BatchedEngine(str(model), force_mllm=True)
        await engine.start()
        try:
            for stop in (106, 50):
                with script.says("vllm_mlx", [*SAID, stop, *PAST]):
                    for answer in await answers(engine):
                        assert (answer.text, answer.finish_reason) == ("so", "stop")
        finally:
            await engine.stop()

    with patched(ID):
        asyncio.run(run())


def test_the_server_stops(folder, tmp_path):
    model = variant(folder, tmp_path / "gemma-4-tiny", **EVERYWHERE["text_config alone"])
    with patched(ID), script.server("vllm_mlx", model, "--mllm") as answer:
        for stop in (106, 50):
            answered = answer(
                [*SAID, stop, *PAST],
                "/v1/chat/completions",
                model=str(model),
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=LIMIT,
            )
            (choice,) = answered["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == ("so", "stop")
