"""The day after: what is new, what is measured beside what, and what a maintainer is told."""

import subprocess

import pytest
from packaging.version import Version

from mlx_gemma4_patches import matrix
from tests.matrix.__main__ import FILE
from tests.matrix.file import read, save
from tests.rehearsal import past
from tests.rehearsal.proving import package_before
from tests.releases import __main__ as command
from tests.releases import changes, published


def index(monkeypatch, out, code=0):
    done = subprocess.CompletedProcess([], code, out, "ERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


def test_pip_is_asked_and_only_final_releases_count(monkeypatch):
    index(monkeypatch, "mlx-lm (0.10)\nAvailable versions: 0.10, 0.9, 0.11rc1, 0.9.1, what\n")
    assert published.versions("mlx-lm") == ["0.9", "0.9.1", "0.10"]
    assert published.new(["0.8", "0.9"], published.versions("mlx-lm")) == ["0.9.1", "0.10"]


@pytest.mark.parametrize(("out", "code"), [("", 1), ("", 0), ("mlx-lm (1)\n", 0)])
def test_where_pip_cannot_say_there_is_one_line(monkeypatch, out, code):
    index(monkeypatch, out, code)
    with pytest.raises(RuntimeError, match="of mlx-lm there are: ERROR: No matching"):
        published.versions("mlx-lm")


def data():
    return {
        "releases": {"mlx-lm": ["1"], "mlx-vlm": ["1", "2"], "vllm-mlx": ["1"]},
        "combinations": {
            "mlx-lm 1": {"base": "new", "mlx-lm": "1"},
            "mlx-vlm 2 + mlx-lm 1": {"base": "new", "mlx-vlm": "2", "mlx-lm": "1"},
        },
        "patches": {
            "mlx_vlm.fault": {
                "code": [
                    {"releases": ["1", "2"], "targets": {"mlx_vlm.a:f": "0"}},
                ]
            }
        },
        "evidence": {"mlx_vlm.fault": {"measured": {}, "fixed": ["mlx-vlm 2 + mlx-lm 1"]}},
    }


@pytest.mark.parametrize(
    ("fresh", "names"),
    [
        ({}, []),
        (
            {"mlx-lm": ["2"]},
            ["mlx-lm 2", "mlx-vlm 2 + mlx-lm 2", "vllm-mlx 1 + mlx-vlm 2 + mlx-lm 2"],
        ),
        (
            {"mlx-vlm": ["3", "4"]},
            [
                "mlx-vlm 3 + mlx-lm 1",
                "mlx-vlm 4 + mlx-lm 1",
                "vllm-mlx 1 + mlx-vlm 4 + mlx-lm 1",
            ],
        ),
        ({"vllm-mlx": ["2"]}, ["vllm-mlx 2 + mlx-vlm 2 + mlx-lm 1"]),
    ],
)
def test_what_is_new_is_measured_beside_the_newest_of_what_it_stands_on(fresh, names):
    made = data()
    assert published.add(made, fresh) == names
    for name, releases in fresh.items():
        assert made["releases"][name][-len(releases) :] == releases
    for name in names:
        assert made["combinations"][name]["base"] == "new"


def test_a_release_that_is_forgotten_is_new_again():
    made = data()
    published.without(made, "mlx-vlm 2")
    assert made["releases"]["mlx-vlm"] == ["1"]
    assert list(made["combinations"]) == ["mlx-lm 1"]
    assert made["patches"]["mlx_vlm.fault"]["code"][0]["releases"] == ["1"]
    assert made["evidence"]["mlx_vlm.fault"]["fixed"] == []
    assert published.new(made["releases"]["mlx-vlm"], ["1", "2"]) == ["2"]


@pytest.mark.parametrize("release", ["mlx-vlm 9", "mlx-vlm", "torch 1", ""])
def test_a_release_that_is_none_is_told(release):
    with pytest.raises(ValueError, match=r"mlx-vlm 0\.7\.10"):
        published.without(data(), release)


def test_a_forgotten_file_can_be_written_and_read(tmp_path):
    whole = read(FILE)
    last = whole["releases"]["mlx-vlm"][-1]
    published.without(whole, f"mlx-vlm {last}")
    save(whole, tmp_path / "matrix.yaml")
    known = matrix.parse((tmp_path / "matrix.yaml").read_text())
    assert last not in known.releases["mlx-vlm"]
    assert not [c for c in known.combinations.values() if c.get("mlx-vlm") == last]


SOURCE = """
def f(a):
    return a


class C:
    @property
    def g(self):
        return 1

    async def h(self):
        pass
"""


@pytest.fixture
def folders(tmp_path):
    for name, text in (("old", SOURCE), ("new", SOURCE.replace("return 1", "return 2"))):
        package = tmp_path / name / "host"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("def here(): pass\n")
        (package / "code.py").write_text(text)
    return tmp_path / "old", tmp_path / "new"


def test_the_difference_of_a_target_is_shown_and_no_other(folders):
    shown = changes.difference(*folders, "host.code:C.g")
    assert "-        return 1\n+        return 2" in shown
    assert "@property" in shown
    assert "async" not in shown
    assert changes.difference(*folders, "host.code:f(a)") == ""


@pytest.mark.parametrize(
    ("target", "first"),
    [("host:here", "def here(): pass"), ("host.code:C.h", "    async def h(self):")],
)
def test_a_target_is_found_in_packages_and_classes(folders, target, first):
    assert changes.source(folders[0], target)[0] == first


@pytest.mark.parametrize("target", ["host.code:C.no", "host.no:f", "host.code:no.g"])
def test_a_target_that_is_not_there_has_no_source(folders, target):
    assert changes.source(folders[0], target) is None


def test_targets_that_came_or_went_are_changes():
    assert changes.between({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ["b", "c"]


@pytest.mark.parametrize(
    ("was", "outcome", "fate", "words"),
    [
        ("fixed", "fixed", "code", ""),
        ("fine", "fine", "", ""),
        ("fixed", "fine", "", "newly fixed"),
        ("fixed", "not_applicable", "", "newly fixed"),
        ("fine", "fixed", "new", "newly faulty"),
        ("fixed", "fixed", "proof", "newly refused"),
        ("fine", "fine", "wrong", "applied though the fault is not there"),
        ("fixed", None, "", "disagree"),
    ],
)
def test_a_maintainer_is_told_what_is_different(was, outcome, fate, words):
    told = command._what(was, outcome, fate)
    assert words in told
    assert bool(words) == bool(told)


def test_the_past_knows_nothing_of_what_came_after():
    known = matrix.load()
    then = past.before(known, "mlx-vlm", "0.7.1")
    assert then.releases["mlx-vlm"][-1] == "0.7.0"
    assert then.releases["mlx-lm"] == known.releases["mlx-lm"]
    for row in then.rows.values():
        for variant in row.code:
            if row.distribution == "mlx-vlm":
                assert all(Version(release) < Version("0.7.1") for release in variant.releases)
            assert variant.releases


def test_a_package_of_the_past_has_the_matrix_of_the_past(tmp_path):
    combination = {"base": "new", "mlx-vlm": "0.7.1", "mlx-lm": "0.32.2"}
    package_before(combination, tmp_path)
    text = (tmp_path / "mlx_gemma4_patches" / matrix.FILE).read_text(encoding="utf-8")
    then = past.before(matrix.load(), "mlx-vlm", "0.7.1")
    assert matrix.parse(text).rows == then.rows
    assert matrix.parse(text).releases == then.releases
