"""The collector of stop tokens: what each source may say, and what becomes of nonsense."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import stop_tokens

VOCABULARY = 512
TOKENS = {"<eos>": 1, "<|tool_response>": 50, "<turn|>": 106}
FILES = ("generation_config.json", "config.json", "tokenizer_config.json", "tokenizer.json")


def write(folder, generation=None, config=None, text_config=None, eos="<eos>", model="gemma4"):
    """A model folder. The first three are values of eos_token_id; None leaves the key out."""

    def said(value):
        return {} if value is None else {"eos_token_id": value}

    inner = {"model_type": "gemma4_text", "vocab_size": VOCABULARY, **said(text_config)}
    contents = {
        "generation_config.json": said(generation),
        "config.json": {"model_type": model, "text_config": inner, **said(config)},
        "tokenizer_config.json": {} if eos is None else {"eos_token": eos},
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": token} for token, i in TOKENS.items()],
            "model": {"vocab": {"1": 7, "106": 8, "word": 9}},
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 106, 50], [1, 106, 50]),
        ([106], [106, 1]),
        (106, [106, 1]),
        (0, [0, 1]),
        ([50, 106, 50], [50, 106, 1]),
        ([[1, 106], [[50]]], [1, 106, 50]),
        ([106.0, 5e1], [106, 50, 1]),
        ("106", [106, 1]),
        (["106", "50"], [106, 50, 1]),
        ("<turn|>", [106, 1]),
        (["<turn|>", "<|tool_response>"], [106, 50, 1]),
        (VOCABULARY - 1, [VOCABULARY - 1, 1]),
        (None, [1]),
        ([], [1]),
        ([None, [], 106], [106, 1]),
    ],
)
def test_what_a_value_stands_for(tmp_path, warnings, value, expected):
    assert stop_tokens.collect(write(tmp_path, generation=value)) == expected
    assert not warnings()


@pytest.mark.parametrize(
    ("value", "shown", "reason"),
    [
        (True, "True", "no token id"),
        ({"id": 106}, "{'id': 106}", "no token id"),
        (-1, "-1", "vocabulary of 512"),
        (VOCABULARY, "512", "vocabulary of 512"),
        (1e300, "1e+300", "vocabulary of 512"),
        (106.5, "106.5", "no integer"),
        (math.nan, "nan", "no integer"),
        (math.inf, "inf", "no integer"),
        ("", "''", "no added token"),
        ("106, 50", "'106, 50'", "no added token"),
        ("-1", "'-1'", "no added token"),
        ("word", "'word'", "no added token"),
        ("١٠٦", "'١٠٦'", "no added token"),
        ("9" * 5000, "999", "digits"),
        ("\ud800", r"'\ud800'", "no added token"),
    ],
)
def test_what_is_no_token_is_left_out_with_a_reason(tmp_path, warnings, value, shown, reason):
    assert stop_tokens.collect(write(tmp_path, generation=[50, value, 106])) == [50, 106, 1]
    (warning,) = warnings()
    assert all(part in warning for part in (f"{tmp_path}/generation_config.json", shown, reason))


def test_the_values_left_out_of_a_file_make_one_warning_per_process(tmp_path, warnings):
    write(tmp_path, config=[-1, -2, -3], text_config=[-4, -5])
    assert stop_tokens.collect(tmp_path) == [1]
    (warning,) = warnings()
    assert f"{tmp_path}/config.json" in warning
    assert "-3, " in warning and "-4, " not in warning and "and 2 more" in warning
    stop_tokens.collect(tmp_path)
    assert len(warnings()) == 1


def test_the_sources_are_united_in_order(tmp_path):
    write(tmp_path, generation=[50], config=[7, 50], text_config=[106, 7])
    assert stop_tokens.collect(tmp_path) == [50, 7, 106, 1]


@pytest.mark.parametrize("eos", ["<turn|>", {"content": "<turn|>", "lstrip": False}])
def test_the_tokenizers_own_end_counts(tmp_path, eos):
    assert stop_tokens.collect(write(tmp_path, generation=[1], eos=eos)) == [1, 106]


@pytest.mark.parametrize("eos", [None, "</s>", "1", 1, [], {}, {"content": None}])
def test_a_tokenizer_that_names_no_token_of_its_own_says_nothing(tmp_path, warnings, eos):
    assert stop_tokens.collect(write(tmp_path, generation=[50], eos=eos)) == [50]
    assert not warnings()


def test_where_nothing_names_a_token_there_is_none(tmp_path):
    assert stop_tokens.collect(write(tmp_path, eos=None)) == []
    assert stop_tokens.collect(tmp_path / "missing") == []


BROKEN = {
    "truncated": (b'{"eos_token_id": [1, 10', "Expecting"),
    "empty": (b"", "Expecting value"),
    "list": (b"[1, 106]", "no object but [1, 106]"),
    "null": (b"null", "no object but None"),
    "number": (b"106", "no object but 106"),
    "bad UTF-8": (b'{"\xff": 1}', "can't decode byte 0xff"),
    "too deep": (b"[" * 200_000, "recursion"),
    "a number too long": (b'{"eos_token_id": ' + b"1" * 5000 + b"}", "digits"),
    "huge": (b'{"a": "' + b" " * (16 << 20) + b'"}', "larger than 16 MiB"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("name", FILES[:3])
def test_a_broken_file_leaves_the_others_their_say(tmp_path, warnings, name, case):
    content, reason = BROKEN[case]
    write(tmp_path, generation=[106], config=[50])
    (tmp_path / name).write_bytes(content)
    expected = {FILES[0]: [50, 1], FILES[1]: [106, 1], FILES[2]: [106, 50]}
    assert stop_tokens.collect(tmp_path) == expected[name]
    (warning,) = warnings()
    assert f"{tmp_path}/{name}" in warning and reason in warning
    stop_tokens.collect(tmp_path)
    assert len(warnings()) == 1


def test_what_cannot_be_opened_is_broken_too(tmp_path, warnings):
    write(tmp_path, config=[106])
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").mkdir()
    assert stop_tokens.collect(tmp_path) == [106, 1]
    (warning,) = warnings()
    assert "generation_config.json" in warning and "directory" in warning


@pytest.mark.parametrize("content", [b"", b"{", b'{"added_tokens": {', b'{"added_tokens": [1]}'])
def test_without_a_readable_tokenizer_numbers_still_count(tmp_path, content):
    write(tmp_path, generation=[106, "50", "<turn|>"])
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert stop_tokens.collect(tmp_path) == [106, 50]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_any_unicode_encoding_is_read(tmp_path, encoding):
    write(tmp_path)
    text = '{"eos_token_id": [106], "_name": "ü"}'
    (tmp_path / "generation_config.json").write_text(text, encoding=encoding)
    assert stop_tokens.collect(tmp_path) == [106, 1]


def test_the_vocabulary_of_a_text_model_stands_at_the_top(tmp_path):
    write(tmp_path, generation=[106, 300])
    (tmp_path / "config.json").write_text('{"model_type": "gemma4_text", "vocab_size": 200}')
    assert stop_tokens.of_gemma4(tmp_path) == [106, 1]
    (tmp_path / "config.json").write_text('{"model_type": "gemma4_text"}')
    assert stop_tokens.of_gemma4(tmp_path) == [106, 300, 1]


@pytest.mark.parametrize(
    "model", ["gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"]
)
def test_gemma_4_is_served(tmp_path, model):
    assert stop_tokens.of_gemma4(write(tmp_path, generation=[106], model=model)) == [106, 1]
    assert stop_tokens.of_gemma4(str(tmp_path)) == [106, 1]


@pytest.mark.parametrize("model", ["gemma3", "gemma4_assistant", "", None, 4, ["gemma4"]])
def test_other_models_are_not(tmp_path, model):
    assert stop_tokens.of_gemma4(write(tmp_path, generation=[106], model=model)) == []


@pytest.mark.parametrize("folder", [None, "", "google/gemma-4-E2B-it", "a\0b", "x" * 5000])
def test_what_is_no_folder_is_no_gemma_4(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(write(tmp_path, generation=[106]))  # "" must not mean this one
    assert stop_tokens.of_gemma4(folder) == []


class TestLoadConfig:
    def test_a_gemma_4_gets_all_ids(self, tmp_path):
        write(tmp_path, generation=["<turn|>"], config=[50])
        config = stop_tokens.load_config(lambda path: {"path": path, "eos_token_id": "x"}, tmp_path)
        assert config == {"path": tmp_path, "eos_token_id": [106, 50, 1]}

    def test_without_any_id_the_hosts_stay(self, tmp_path):
        write(tmp_path, eos=None)
        assert stop_tokens.load_config(lambda path: {"eos_token_id": 9}, tmp_path) == {
            "eos_token_id": 9
        }

    def test_a_file_at_which_the_host_fails_is_kept_from_it(self, tmp_path):
        def load(path):
            if (path / "generation_config.json").exists():
                raise AttributeError("'list' object has no attribute 'get'")
            return json.loads((path / "config.json").read_text())

        write(tmp_path, config=[106])
        (tmp_path / "generation_config.json").write_text("[]")
        assert stop_tokens.load_config(load, tmp_path)["eos_token_id"] == [106, 1]

    def test_an_error_of_another_cause_is_the_hosts(self, tmp_path):
        def load(path):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            stop_tokens.load_config(load, write(tmp_path))

    def test_another_model_is_loaded_once_and_as_ever(self, tmp_path):
        write(tmp_path, generation=[106], model="llama")
        calls = []
        assert stop_tokens.load_config(lambda path: calls.append(path) or calls, tmp_path) is calls
        assert calls == [tmp_path]


class TestUnite:
    def test_a_gemma_4_gets_the_hosts_ids_and_all_others(self, tmp_path):
        write(tmp_path, generation=[106])
        assert stop_tokens.unite(lambda: {7, "106", True, None, 5.0}, tmp_path) == {1, 7, 106}

    def test_a_host_that_fails_adds_nothing(self, tmp_path):
        assert stop_tokens.unite(lambda: 1 // 0, write(tmp_path, generation=[106])) == {1, 106}

    def test_another_model_gets_the_hosts_alone(self, tmp_path):
        write(tmp_path, generation=[106], model="llama")
        found = {7, "106"}
        assert stop_tokens.unite(lambda: found, tmp_path) is found
        with pytest.raises(ZeroDivisionError):
            stop_tokens.unite(lambda: 1 // 0, tmp_path)


class TestProbe:
    def test_a_host_that_asks_the_collector_is_fine(self, warnings):
        assert not stop_tokens.probe(stop_tokens.of_gemma4).faulty
        assert not warnings()

    def test_a_host_that_asks_the_tokenizer_is_not(self):
        finding = stop_tokens.probe(lambda folder: [1])
        assert finding.faulty and "stops at [1]" in finding.measured

    def test_a_host_that_raises_is_not(self):
        finding = stop_tokens.probe(stop_tokens.collect, lambda folder: 1 // 0)
        assert finding.faulty and "ZeroDivisionError" in finding.measured


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, VOCABULARY)
    | st.floats()
    | st.text()
    | st.sampled_from([*TOKENS, "106", "-1", "1_0", " 1", "²"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def leaves(value):
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


@given(JSON, JSON, JSON, JSON)
@example([1, 106, 50], None, None, "<eos>")
def test_any_json_gives_distinct_ids_of_the_vocabulary(generation, config, text_config, eos):
    with tempfile.TemporaryDirectory() as folder:
        found = stop_tokens.of_gemma4(write(Path(folder), generation, config, text_config, eos))
    assert all(type(i) is int and 0 <= i < VOCABULARY for i in found)
    assert len(set(found)) == len(found)
    plain = [
        leaf
        for leaf in leaves([generation, config, text_config])
        if type(leaf) is int and 0 <= leaf < VOCABULARY
    ]
    assert set(plain) <= set(found)


@given(st.sampled_from(FILES), st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_for_a_file_leave_the_others_their_say(name, content):
    with tempfile.TemporaryDirectory() as temporary:
        folder = write(Path(temporary), generation=[106], config=[50])
        (folder / name).write_bytes(content)
        found = stop_tokens.collect(folder)
        stop_tokens.of_gemma4(folder)
    assert {106, 50} - {FILES[0]: {106}, FILES[1]: {50}}.get(name, set()) <= set(found)
    assert all(type(i) is int and i >= 0 for i in found)
