"""The audit finds two habits in source text and says what they do here."""

from __future__ import annotations

import json
from textwrap import dedent
from types import SimpleNamespace

import pytest

from mlx_gemma4_patches import audit
from mlx_gemma4_patches.__main__ import main


def found(body):
    source = "def call(self, x, cache):\n" + "".join(f"    {line}\n" for line in body)
    return [(f.kind, f.line - 1, f.used and f.used - 1) for f in audit.scan(source)]


UPDATE = "k, v = cache.update_and_fetch(k, v)"
COPY = "offset = mx.array(offset)"
USE = "q = self.rope(q, offset=offset)"


@pytest.mark.parametrize(
    "body",
    [
        ["offset = cache.offset", UPDATE, USE],
        ["offset = cache.offset if cache is not None else 0", UPDATE, USE],
        ["offset = 0 if cache is None else cache.offset", UPDATE, USE],
        ["offset = getattr(cache, 'offset', 0)", UPDATE, USE],
        ["offset: int = cache[0].offset", UPDATE, USE],
        ["print(offset := cache.offset)", UPDATE, USE],
        ["offset = cache.offset", "cache.update(k, v)", USE],
        ["offset = cache.offset", f"if cache: {UPDATE}", USE],
        ["offset = cache.offset", "self.attend(cache.update_and_fetch(k, v), offset)"],
    ],
    ids=str,
)
def test_an_offset_used_after_the_update_is_found(body):
    ((kind, line, used),) = found(body)
    assert (kind, line, used) == ("offset", 1, len(body))


@pytest.mark.parametrize(
    "body",
    [
        ["offset = mx.array(cache.offset)", UPDATE, USE],
        ["offset = cache.offset + 0", UPDATE, USE],
        ["offset = cache.offset", USE, UPDATE],
        ["offset = cache.offset", UPDATE],
        ["offset = cache.offset", UPDATE, "offset = 0", USE],
        ["offset = cache.offset", COPY, UPDATE, USE],
        ["offset = cache.offset", "k, v = cache.update_and_fetch(self.rope(k, offset), v)"],
        ["offset = cache.offset", f"if cache: {UPDATE}", f"else: {USE}"],
        ["offset = cache.offset", "if cache:", f"    {UPDATE}", "    return k", USE],
        ["offset = cache.offset", "if isinstance(offset, mx.array):", f"    {COPY}", UPDATE, USE],
        ["offset = cache.offset", f"def inner(): {UPDATE}", USE],
        ["offset = self.start", UPDATE, USE],
    ],
    ids=str,
)
def test_a_copy_and_a_use_before_the_update_are_fine(body):
    assert found(body) == []


def test_only_the_branch_that_updates_counts():
    body = ["if cache is None: offset = 0", "else: offset = cache.offset", UPDATE, USE]
    assert found(body) == [("offset", 2, 4)]


@pytest.mark.parametrize("value", ["cache.state", "caches[-1].state", "cache[0][1].state"])
def test_a_state_in_two_values_is_found(value):
    assert found([f"keys, values = {value}"]) == [("state", 1, None)]


@pytest.mark.parametrize(
    "line",
    [
        "keys, values, offset, padding = cache.state",
        "state = cache.state",
        "keys, values = self.state",
        "keys, values = self.cache.state",
        "keys, values = super().state",
        "keys, values = cache.state[:2]",
        "keys, *rest = cache.states",
    ],
)
def test_other_states_are_fine(line):
    assert found([line]) == []


def test_methods_and_functions_in_functions_are_looked_at():
    source = """
        class Attention:
            def __call__(self, x, cache):
                def attend():
                    keys, values = cache.state
                return attend()
    """
    (finding,) = audit.scan(dedent(source))
    assert (finding.function, finding.line) == ("attend", 5)


@pytest.mark.parametrize("source", ["def broken(:", "a\0b", "(" * 10_000])
def test_what_is_no_python_raises_what_audit_reports(source):
    with pytest.raises((SyntaxError, ValueError, RecursionError, MemoryError)):
        audit.scan(source)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A folder that passes for mlx_lm, and how harmful a place is."""
    (tmp_path / "models" / "good").mkdir(parents=True)
    (tmp_path / "models" / "bad.py").write_text("def f(cache):\n    a, b = cache.state\n")
    (tmp_path / "models" / "good" / "language.py").write_text("x = 1\n")
    (tmp_path / "server.py").write_text("def f(cache):\n    a, b = cache.state\n")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    finders = {"mlx_lm": spec}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: finders.get(name))
    harm = SimpleNamespace(harmful=True)
    monkeypatch.setattr(audit, "_harm", lambda *_: audit._Harm(harm.harmful, "because"))
    monkeypatch.setattr("mlx_gemma4_patches.activate", lambda: None)
    return SimpleNamespace(folder=tmp_path, harm=harm)


def test_the_models_of_a_host_are_read_and_nothing_else(host):
    result = audit.audit("mlx-lm")
    (place,) = result["findings"]
    assert (place["file"], place["line"], place["model"]) == ("models/bad.py", 2, "bad")
    assert (place["kind"], place["harmful"], place["why"]) == ("state", True, "because")
    assert result["files"] == 2 and result["unread"] == []


def test_files_that_cannot_be_read_are_told(host):
    models = host.folder / "models"
    (models / "syntax.py").write_text("def broken(:")
    (models / "bytes.py").write_bytes(b"x = '\xff'")
    (models / "nul.py").write_text("a\0b")
    (models / "folder.py").mkdir()
    (models / "gone.py").symlink_to(models / "nowhere.py")
    result = audit.audit("mlx_lm")
    assert [place["model"] for place in result["findings"]] == ["bad"]
    names = ["bytes", "folder", "gone", "nul", "syntax"]
    assert [file["file"] for file in result["unread"]] == [f"models/{name}.py" for name in names]
    assert all(file["reason"] for file in result["unread"])


@pytest.mark.parametrize(("harmful", "code"), [(True, 1), (False, 0), (None, 0)])
def test_the_exit_code_says_whether_harm_is_left(host, harmful, code, capsys):
    host.harm.harmful = harmful
    assert main(["audit", "mlx_lm"]) == code
    assert "models/bad.py:2" in "".join(capsys.readouterr().out.split("\n")).replace(" ", "")
    assert main(["audit", "--json"]) == code
    (result,) = json.loads(capsys.readouterr().out)
    assert result["findings"][0]["harmful"] is harmful


@pytest.mark.parametrize("name", ["mlx_vlm", "json", "", "../mlx_lm"])
def test_another_package_is_wrong_usage(host, name):
    if name:
        assert main(["audit", name]) == 2
    with pytest.raises(audit.NotInstalled):
        audit.audit(name)


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        main(["audit", "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("update_and_fetch", "mx.array(cache.offset)", "Exit codes: 0", "Example"):
        assert part in said
