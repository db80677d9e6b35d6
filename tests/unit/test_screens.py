"""What the commands print: the verdict first, one line a patch, one record a line for a pipe."""

from __future__ import annotations

import copy
import importlib
import io

import pytest
from rich.console import Console

from mlx_gemma4_patches import __main__ as command_line
from mlx_gemma4_patches.commands import doctor, explain, list, screen
from mlx_gemma4_patches.doctor import examination, report

for name in command_line.COMMANDS:  # before a test gives them another console to import
    importlib.import_module(f"mlx_gemma4_patches.commands.{name}")

MEASURED = {"faulty": True, "measured": "a very long text of what was seen " * 5}
WELL = {"faulty": False, "measured": "nothing wrong"}
PATCH = {
    **{"id": "vllm_mlx.attention_patch_mismatch", "state": "applied", "verdict": "proved"},
    **{"reason": "vllm-mlx 0.3.0 has this fault", "title": "Every request fails, " * 8},
    **{"stock": MEASURED, "patched": WELL},
}
FOUND = {
    "environment": {
        **{"package": "0.1.0", "python": "3.11", "platform": "a system", "device": "gpu"},
        **{"mlx": "0.32.4", "transformers": "5.24", "hosts": {"mlx_lm": "0.32.2"}},
    },
    "activation": {"on": True, "pth": "/env/a.pth", "active_in_new_process": True},
    "patches": [PATCH, {**PATCH, "id": "mlx_lm.a", "verdict": "not_needed", "state": "not_needed"}],
    **{key: [] for key in ("imported", "conflicts", "advice", "problems", "unimportable")},
    **{"model": None, "healthy": True},
}


@pytest.fixture
def found(monkeypatch):
    """What the doctor finds, for a test to change."""
    found = copy.deepcopy(FOUND)
    for module in (doctor, list):
        monkeypatch.setattr(
            examination if module is list else module, "examine", lambda *a, **k: found
        )
    return found


@pytest.fixture
def terminal(monkeypatch):
    """Runs a command on a terminal of so many columns; returns its lines."""

    def run(width, *arguments, color=None):
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=True, width=width, highlight=False, color_system=color
        )
        for module in (screen, doctor, list, explain):
            monkeypatch.setattr(module, "OUT", console)
        command_line.main([*arguments])
        return out.getvalue().splitlines()

    return run


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("arguments", [["doctor"], ["list"], ["explain", "mlx_lm.kv_bits"]])
def test_a_screen_fits_its_terminal(found, terminal, arguments, width):
    lines = terminal(width, *arguments)
    assert lines and all(len(line.rstrip()) <= width for line in lines)


def test_the_doctor_leads_with_the_verdict_and_has_one_line_a_patch(found, terminal):
    lines = terminal(80, "doctor")
    assert lines[0] == "healthy: 1 patch proved, 1 not needed"
    assert sum("vllm_mlx.attention_patch_mismatch" in line for line in lines) == 1
    assert not any("what was seen" in line for line in lines)
    verbose = terminal(80, "doctor", "-v")
    assert any(line.startswith("    stock: a very long text") for line in verbose)
    assert "    patched: nothing wrong" in verbose


def test_what_needs_attention_comes_first_and_in_full(found, terminal):
    found["patches"].append({**PATCH, "id": "mlx_lm.left", "verdict": "fault_left"})
    found |= {"healthy": False, "advice": ["upgrade it"]}
    lines = terminal(80, "doctor")
    assert lines[0].startswith("not healthy: 1 patch not right; 1 patch proved")
    assert lines[1] == "advice: upgrade it"
    order = [line.split()[0] for line in lines if "mlx." in line or "mlx_lm." in line]
    assert order == ["fault", "proved", "not"]
    assert any("stock: a very long text" in line for line in lines)


def test_a_host_that_is_half_installed_is_said_once(found, terminal):
    broken = {"verdict": "error", "stock": {"error": "no"}, "patched": {"error": "no"}}
    found["patches"] = [{**PATCH, "id": f"mlx_lm.{i}", **broken} for i in range(40)]
    found |= {"healthy": False, "unimportable": ["mlx_lm"], "problems": ["no module named numpy"]}
    lines = terminal(80, "doctor")
    assert lines[0].startswith("not healthy: 1 problem;")
    assert lines[1:3] == ["problem: no module named numpy", "hence: 40 patches could not be probed"]
    assert not any("mlx_lm.7" in line for line in lines)


def test_without_probes_nothing_is_called_proved_or_healthy(found, terminal):
    for patch in found["patches"]:
        patch |= {"verdict": "not_probed", "stock": None, "patched": None}
    first = terminal(80, "doctor", "--no-probes")[0]
    assert first == "no problem seen: 1 patch on, 1 off; nothing was probed"


def test_a_pipe_gets_one_record_a_line(found, capsys):
    command_line.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "verdict\thealthy: 1 patch proved, 1 not needed"
    proved = [line.split("\t") for line in lines if line.startswith("proved")]
    assert proved == [["proved", PATCH["id"], "applied", PATCH["reason"]]]
    command_line.main(["list"])
    first = capsys.readouterr().out.splitlines()[0].split("\t")
    assert first[:3] == [PATCH["id"], "applied", PATCH["reason"]]
    assert first[3] == " ".join(PATCH["title"].split())
    command_line.main(["explain", "mlx_lm.kv_bits"])
    assert all("\t" in line for line in capsys.readouterr().out.splitlines())


def test_colour_changes_no_word(found, terminal):
    import re

    coloured = terminal(80, "doctor", color="truecolor")
    plain = terminal(80, "doctor")
    assert any("\x1b[" in line for line in coloured)
    assert [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured] == [
        re.sub(r"\x1b\[[\d;]*m", "", line) for line in plain
    ]


def test_a_report_says_nothing_of_whose_machine_it_is(found, tmp_path, monkeypatch):
    home = tmp_path / "home" / "jane.doe"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(report.getpass, "getuser", lambda: "jane.doe")
    monkeypatch.chdir(tmp_path)
    found["problems"] = [
        f"{home}/models/x is broken; see /Users/jane.doe/notes and /data/jane.doe",
        "the server said: Bearer hf_abcdefghijklmnop",
    ]
    command_line.main(["doctor", "--report", str(tmp_path / "report.md")])
    text = (tmp_path / "report.md").read_text()
    assert "jane" not in text and "hf_abc" not in text and str(tmp_path) not in text
    assert "~/models/x is broken" in text and "/Users/USER/notes and /data/USER" in text
    assert "| vllm_mlx.attention_patch_mismatch | applied: vllm-mlx 0.3.0 has this fault |" in text


def test_a_model_that_is_nowhere_is_wrong_usage(capsys):
    assert command_line.main(["doctor", "--model", "no/such"]) == 2
    assert "hf download no/such" in capsys.readouterr().err


def test_an_id_without_its_host_is_understood(capsys):
    assert command_line.main(["explain", "kv_bits"]) == 2
    assert "did you mean mlx_lm.kv_bits or mlx_vlm.kv_bits?" in capsys.readouterr().err
