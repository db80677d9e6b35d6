"""mlx-lm stops where a Gemma 4 model folder says, whichever file says it and in whatever form."""

from __future__ import annotations

import json

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import script, tokenizer
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.folders import BROKEN, EVERYWHERE, other_model, variant

ID = "mlx_lm.eos_tokens"
SAID = tokenizer.ids("so")
PAST = tokenizer.ids("un")  # said after the end of the turn, by a host that does not stop there
LIMIT = 8

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestEosTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path):
        self.folder = tmp_path

    def untouched(self):
        from mlx_lm.utils import load_config, load_tokenizer

        seen = []
        for content in EVERYWHERE.values():
            folder = other_model(self.folder, **content)
            try:
                config = load_config(folder)
                seen += [config, load_tokenizer(folder, {}, config["eos_token_id"]).eos_token_ids]
            except Exception as error:
                seen.append(repr(error))
        return [*seen, load_tokenizer(folder).eos_token_ids]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny.save("dense", tmp_path_factory.mktemp("gemma-4-tiny"))
    tokenizer.save(made)
    return made


def say(model, given, stop, prompt="hi"):
    """The ids that ``stream_generate`` gives of a model that says SAID, ``stop`` and PAST."""
    from mlx_lm import stream_generate

    with script.says("mlx_lm", [*SAID, stop, *PAST]):
        return [r.token for r in stream_generate(model, given, prompt, max_tokens=LIMIT)]


@pytest.mark.parametrize("stop", [1, 106, 50])
@pytest.mark.parametrize("case", EVERYWHERE)
def test_generation_stops_at_every_id_that_the_folder_names(folder, tmp_path, case, stop):
    from mlx_lm import load

    with patched(ID):
        model, given = load(str(variant(folder, tmp_path, **EVERYWHERE[case])))
        assert say(model, given, stop) == [*SAID, stop]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_generation_config_leaves_the_other_files_their_say(folder, tmp_path, case):
    from mlx_lm import load

    with patched(ID):
        model, given = load(str(variant(folder, tmp_path, generation=BROKEN[case])))
        assert say(model, given, 106) == [*SAID, 106]
        assert say(model, given, 50) == [*SAID, 50, *PAST, *PAST[-1:] * 3]  # nothing names 50


@pytest.mark.parametrize("stop", [106, 50])
def test_a_tokenizer_loaded_alone_stops_too(folder, stop):
    from mlx_lm.utils import load_model, load_tokenizer

    model, _ = load_model(folder)
    with stock(ID):
        assert len(say(model, load_tokenizer(folder), stop)) == LIMIT
    with patched(ID):
        assert say(model, load_tokenizer(folder), stop) == [*SAID, stop]


@pytest.mark.parametrize("stop", [106, 50])
def test_a_plain_hugging_face_tokenizer_stops_too(folder, stop):
    from mlx_lm.utils import load_model
    from transformers import AutoTokenizer

    model, _ = load_model(folder)
    plain = AutoTokenizer.from_pretrained(folder)
    with stock(ID):
        assert len(say(model, plain, stop)) == LIMIT
    with patched(ID):
        assert say(model, plain, stop) == [*SAID, stop]


@pytest.mark.parametrize("stop", [106, 50])
def test_every_row_of_a_batch_stops(folder, stop):
    from mlx_lm import batch_generate
    from mlx_lm.utils import load_model, load_tokenizer

    model, _ = load_model(folder)
    prompts = [tokenizer.ids("hi"), tiny.prompt(40)]
    with patched(ID), script.says("mlx_lm", [*SAID, stop, *PAST]):
        answer = batch_generate(model, load_tokenizer(folder), prompts, max_tokens=LIMIT)
        assert answer.texts == ["so", "so"]


def test_ids_that_the_caller_names_are_the_callers(folder):
    from mlx_lm.utils import load_tokenizer

    with stock(ID):
        expected = load_tokenizer(folder, eos_token_ids=[7]).eos_token_ids
    with patched(ID):
        assert load_tokenizer(folder, eos_token_ids=[7]).eos_token_ids == expected
        assert load_tokenizer(folder, eos_token_ids=[]).eos_token_ids <= {1}


def test_an_eos_token_that_the_caller_names_is_kept(folder):
    from mlx_lm.utils import load_tokenizer

    with patched(ID):
        given = load_tokenizer(folder, {"eos_token": "<unk>"})
        assert given.eos_token_ids == {1, 106, 50, 3}


def test_a_converted_model_stops_too(folder, tmp_path):
    from mlx_lm import convert, load

    with patched(ID):
        source = variant(folder, tmp_path / "from", **EVERYWHERE["text_config alone"])
        convert(str(source), str(tmp_path / "to"), quantize=True, q_group_size=64)
        config = json.loads((tmp_path / "to" / "config.json").read_text())
        assert config["eos_token_id"] == [1, 106, 50]
        model, given = load(str(tmp_path / "to"))
        assert say(model, given, 50) == [*SAID, 50]


def test_the_server_stops(folder, tmp_path):
    names = EVERYWHERE["text_config alone"]
    with patched(ID), script.server("mlx_lm", variant(folder, tmp_path, **names)) as answer:
        for stop in (106, 50):
            answered = answer(
                [*SAID, stop, *PAST],
                "/v1/chat/completions",
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=LIMIT,
            )
            (choice,) = answered["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == ("so", "stop")
