"""What ``python -m tests.new`` lays is a patch that is registered, listed and to be filled in."""

from __future__ import annotations

import ast
import shutil

import pytest

from mlx_gemma4_patches import matrix
from tests import new
from tests.matrix.environments import ROOT

ARGUMENTS = ("mlx_lm.my_fault", 'It\'s "wrong"', "mlx_lm.models.cache:KVCache.size", ">=0.32")


MATRIX = """\
schema: 1
releases: {mlx-lm: ['0.32']}
gemma4_since: {}
advice: []
end: document
---
patches:
  mlx_lm.other: {title: Another, faulty: [{mlx-lm: '>=0'}]}
end: document
---
combinations: {}
evidence: {}
end: file
"""


@pytest.fixture
def root(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / matrix.FILE).write_text(MATRIX)
    for folder in ("mlx_gemma4_patches/patches/mlx_lm", "tests/hosts"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_four_places_are_laid(root):
    shutil.copy(ROOT / matrix.FILE, root)
    assert {file.name for file in new.lay(root, *ARGUMENTS)} == {
        "my_fault.py",
        "test_mlx_lm_my_fault.py",
        matrix.FILE,
        "pyproject.toml",
    }
    rows = matrix.parse((root / matrix.FILE).read_text()).rows
    row = rows.pop("mlx_lm.my_fault")
    assert rows == matrix.load().rows
    assert (row.title, str(row.faulty[0]["mlx-lm"])) == (ARGUMENTS[1], ">=0.32")

    before, after = ((folder / "pyproject.toml").read_text() for folder in (ROOT, root))
    (line,) = set(after.splitlines()) - set(before.splitlines())
    assert line == '"mlx_lm.my_fault" = "mlx_gemma4_patches.patches.mlx_lm.my_fault:PATCH"'
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    text = after.partition(new.ENTRY_POINTS)[2].partition("\n\n")[0]
    assert text.splitlines() == sorted(text.splitlines())

    source = (root / "mlx_gemma4_patches/patches/mlx_lm/my_fault.py").read_text()
    names = {"__package__": "mlx_gemma4_patches.patches.mlx_lm"}
    exec(source, names)
    assert names["PATCH"].id == "mlx_lm.my_fault"
    assert names["PATCH"].targets == ("mlx_lm.models.cache:KVCache.size",)
    for text in (source, (root / "tests/hosts/test_mlx_lm_my_fault.py").read_text()):
        assert ARGUMENTS[1] in ast.get_docstring(ast.parse(text))


def test_what_is_there_stays_and_what_is_missing_is_laid(root):
    new.lay(root, *ARGUMENTS)
    with pytest.raises(new.Refused, match="already"):
        new.lay(root, *ARGUMENTS)
    test = root / "tests/hosts/test_mlx_lm_my_fault.py"
    test.unlink()
    assert new.lay(root, *ARGUMENTS) == [test]


@pytest.mark.parametrize(
    "wrong",
    [
        {0: "mlx_lm"},
        {0: "other.fault"},
        {0: "mlx_lm.../escape"},
        {0: "mlx_lm.Fault"},
        {2: "mlx_lm.models"},
        {3: "newest"},
    ],
    ids=str,
)
def test_wrong_words_lay_nothing(root, wrong):
    arguments = [wrong.get(at, given) for at, given in enumerate(ARGUMENTS)]
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    with pytest.raises(new.Refused):
        new.lay(root, *arguments)
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_the_command_says_what_comes_next(root, monkeypatch, capsys):
    monkeypatch.setattr(new, "ROOT", root)
    assert new.main(["mlx_lm.my_fault"]) == 0
    said = capsys.readouterr().out
    for part in ("my_fault.py", "pip install", "tests.matrix --write", "tests.matrix.table"):
        assert part in said
    assert new.main(["mlx_lm.my_fault"]) == 2
    assert "already" in capsys.readouterr().err
