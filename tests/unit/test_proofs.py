"""The file of what was proved on this machine: whatever is in it, hosts go on."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches import __version__, proofs
from mlx_gemma4_patches.__main__ import main

PROOF = proofs.Proof(
    {"mlx_lm.a:f": "0" * 16, "mlx_lm.b:f": None},
    {"mlx": "0.32.4"},
    "mlx-lm 9.9",
    "2030-01-02",
    "wrong",
    "right",
)
FOUND = proofs.Proofs({"mlx-lm": "9.9"}, {"mlx_lm.fault": PROOF}, {"mlx_lm.other": "no"})


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


def read():
    problems = []
    return proofs.read(problems.append), problems


def test_without_a_file_nothing_is_proved_and_nothing_is_said():
    assert read() == (proofs.NOTHING, [])


def test_what_is_written_is_read():
    file = proofs.write(FOUND)
    assert read() == (FOUND, [])
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.stat().st_mode & 0o444 == 0o444  # every user of the environment may read it


def test_it_lies_in_the_environment_and_is_forgotten_without_a_trace(environment):
    assert proofs.write(FOUND).is_relative_to(environment)
    assert main(["prove", "--forget"]) == 0
    assert not [*environment.glob("share/mlx-gemma4-patches*")]
    assert main(["prove", "--forget"]) == 0


def change(**keys):
    file = proofs.write(FOUND)
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"package": "0.0.9"}, "it was made by another release of mlx-gemma4-patches"),
        ({"schema": 2}, "it was made by another release of mlx-gemma4-patches"),
        ({"prefix": "/elsewhere"}, "it was made for /elsewhere"),
        ({"proved": {"mlx_lm.fault": {}}}, "it is no file of proofs"),
        ({"proved": {"mlx_lm.fault": {**PROOF._asdict(), "targets": {}}}}, "it names no code"),
        ({"proved": {"mlx_lm.fault": {**PROOF._asdict(), "date": 3}}}, "it is no file of proofs"),
        ({"left_off": []}, "it is no file of proofs"),
    ],
)
def test_an_outdated_foreign_or_wrong_file_is_ignored_with_one_line(keys, words):
    change(**keys)
    found, (problem,) = read()
    assert found == proofs.NOTHING
    assert words in problem
    assert "mlx_gemma4_patches prove" in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b"null", b"{", b'{"schema": 1}', b"1"]
)
def test_a_broken_file_is_ignored_with_one_line(content):
    proofs.write(FOUND).write_bytes(content)
    found, (problem,) = read()
    assert found == proofs.NOTHING
    assert "\n" not in problem


def test_a_folder_in_its_place_is_ignored_with_one_line():
    proofs.path().mkdir(parents=True)
    found, (_,) = read()
    assert found == proofs.NOTHING


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(["versions", "proved", "left_off", "targets", "beside", "date", "x:y"]),
            part,
            max_size=4,
        )
    ),
)


@given(_JSON)
def test_whatever_it_says_it_is_read_or_ignored(value):
    file = proofs.write(FOUND)
    head = {"schema": proofs.SCHEMA, "package": __version__, "prefix": sys.prefix}
    file.write_text(json.dumps({**value, **head} if isinstance(value, dict) else value))
    found, problems = read()
    assert isinstance(found, proofs.Proofs)
    assert len(problems) <= 1
    assert found == proofs.NOTHING or not problems


def test_where_it_cannot_be_written_the_command_says_what_to_do(environment, capsys, monkeypatch):
    (environment / "share").write_text("not a folder")
    monkeypatch.setattr("mlx_gemma4_patches.doctor.proving.prove", lambda told: FOUND)
    assert main(["prove"]) == 1
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert "virtual environment of your own" in error


def test_a_write_that_fails_leaves_what_was_there(monkeypatch):
    file = proofs.write(FOUND)

    def fail(*paths):
        raise OSError("the disk is full")

    monkeypatch.setattr(proofs.os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        proofs.write(proofs.NOTHING)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "prefix", str(file.parents[2]))
    assert read() == (FOUND, [])
    assert len([*file.parent.iterdir()]) == 1
