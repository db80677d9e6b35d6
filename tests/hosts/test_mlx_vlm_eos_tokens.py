"""mlx-vlm stops where a Gemma 4 model folder says, whichever file says it and in whatever form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import script, tokenizer
from tests.hosts.contract import PatchContract, patched
from tests.hosts.folders import BROKEN, EVERYWHERE, other_model, variant

ID = "mlx_vlm.eos_tokens"
SAID = tokenizer.ids("so")
PAST = tokenizer.ids("un")  # said after the end of the turn, by a host that does not stop there
LIMIT = 8

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


class TestEosTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path):
        self.folder = tmp_path

    def untouched(self):
        from mlx_vlm.utils import StoppingCriteria, load_config

        seen = []
        for content in EVERYWHERE.values():
            folder = other_model(self.folder, **content)
            given = SimpleNamespace(
                eos_token_id=1,
                eos_token_ids=[1],
                name_or_path=str(folder),
                encode=lambda *_, **__: [9],
            )
            try:
                config = load_config(str(folder))
                criteria = StoppingCriteria(config["eos_token_id"], given)
                criteria.reset(config["eos_token_id"])
                criteria.add_eos_token_ids(["x"])
                seen += [list(criteria.eos_token_ids), config]
            except Exception as error:
                seen.append(repr(error))
        return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny.save("dense", tmp_path_factory.mktemp("gemma-4-tiny"))
    tokenizer.save(made)
    return made


def say(model, processor, stop, **options):
    """The text that ``generate`` gives of a model that says SAID, ``stop`` and PAST."""
    from mlx_vlm import generate

    with script.says("mlx_vlm", [*SAID, stop, *PAST]):
        return generate(model, processor, "hi", max_tokens=LIMIT, verbose=False, **options).text


@pytest.mark.parametrize("stop", [1, 106, 50])
@pytest.mark.parametrize("case", EVERYWHERE)
def test_generation_stops_at_every_id_that_the_folder_names(folder, tmp_path, case, stop):
    from mlx_vlm import load, stream_generate

    with patched(ID):
        model, processor = load(str(variant(folder, tmp_path, **EVERYWHERE[case])))
        assert say(model, processor, stop) == "so"
        with script.says("mlx_vlm", [*SAID, stop, *PAST]):
            answer = list(stream_generate(model, processor, "hi", max_tokens=LIMIT))
        assert "".join(part.text for part in answer) == "so"


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_generation_config_leaves_the_other_files_their_say(folder, tmp_path, case):
    from mlx_vlm import load

    with patched(ID):
        model, processor = load(str(variant(folder, tmp_path, generation=BROKEN[case])))
        assert say(model, processor, 106) == "so"
        assert say(model, processor, 50) != "so"  # nothing names 50


@pytest.mark.parametrize("stop", [106, 50])
def test_every_row_of_a_batch_stops(folder, tmp_path, stop):
    from mlx_vlm import batch_generate, load

    with patched(ID):
        model, processor = load(str(variant(folder, tmp_path, **EVERYWHERE["text_config alone"])))
        with script.says("mlx_vlm", [*SAID, stop, *PAST]):
            answer = batch_generate(
                model, processor, prompts=["hi", "hi there"], max_tokens=LIMIT, verbose=False
            )
        assert answer.texts == ["so", "so"]


def test_eos_tokens_of_one_request_do_not_stop_the_next(folder):
    from mlx_vlm import load

    with patched(ID):
        model, processor = load(str(folder))
        own = tokenizer.ids("x")[0]
        assert say(model, processor, own, eos_tokens=["x"]) == "so"
        assert say(model, processor, own).startswith("soxun")
        assert model.config.eos_token_id == [1, 106, 50]


def test_the_name_of_a_repository_is_the_hosts_to_look_up(folder, monkeypatch):
    from mlx_vlm import utils

    monkeypatch.setattr(utils, "get_model_path", lambda name, **_: folder)
    with patched(ID):
        assert utils.load_config("someone/gemma-4")["eos_token_id"] == [1, 106, 50]


def test_the_server_stops(folder, tmp_path):
    model = variant(folder, tmp_path, **EVERYWHERE["text_config alone"])
    with patched(ID), script.server("mlx_vlm", model) as answer:
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
