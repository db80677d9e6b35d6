"""The doctor on a host and patches of our own, found through the path like installed ones."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from mlx_gemma4_patches import __main__ as command_line
from mlx_gemma4_patches.doctor import examination, probes
from mlx_gemma4_patches.patch import State

PATCHES = """
import os
from mlx_gemma4_patches.patch import Finding, NotApplicable, Patch

def row():
    return {"title": "t", "faulty": [{"mlx-lm": "==9.9"}]}

def make(name, probe):
    return Patch(f"mlx_lm.{name}", ("mlx_lm:f",), lambda surgery: None, probe, row())

def raises():
    raise RuntimeError("no luck")

def does_not_apply():
    raise NotApplicable("nothing here")

fine = make("fine", lambda: Finding(False, "all is well"))
dies = make("dies", lambda: os._exit(3))
raising = make("raising", raises)
elsewhere = make("elsewhere", does_not_apply)
"""


@pytest.fixture
def fake_host(tmp_path, monkeypatch):
    def distribution(name, version, entry_points=""):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (folder / "entry_points.txt").write_text(textwrap.dedent(entry_points))

    (tmp_path / "mlx_lm.py").write_text("def f(): pass\n")
    (tmp_path / "their_patches.py").write_text(PATCHES)
    names = ("dies", "elsewhere", "fine", "raising")
    lines = [f"mlx_lm.{name} = their_patches:{name}" for name in names]
    distribution("mlx_lm", "1.0")
    distribution("theirs", "1.0", "\n".join(["[mlx_gemma4_patches.patches]", *lines]))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return [f"mlx_lm.{name}" for name in names]


def test_a_probe_that_kills_its_process_costs_only_itself(fake_host):
    told = []
    runs = probes.run(["mlx_lm"], fake_host, lambda *seen: told.append(seen))
    for mode in ("stock", "patched"):
        found = runs[mode]["probes"]
        assert found["mlx_lm.fine"] == {"faulty": False, "measured": "all is well"}
        died = "the process ended with 3: no message, while probing mlx_lm.dies"
        assert found["mlx_lm.dies"] == {"error": died}
        assert found["mlx_lm.raising"] == {"error": "RuntimeError: no luck"}
        assert found["mlx_lm.elsewhere"] == {"not_applicable": "nothing here"}
        steps = ["importing mlx_lm", "probing mlx_lm.dies", "importing mlx_lm"]
        steps += [f"probing {name}" for name in fake_host if name != "mlx_lm.dies"]
        assert [what for seen, what in told if seen == mode][: len(steps)] == steps
    assert runs["patched"]["status"]["hosts"] == {"mlx_lm": "1.0"}
    assert runs["stock"]["status"]["active"] is False


def test_a_host_that_cannot_be_imported_is_named(fake_host, tmp_path):
    (tmp_path / "mlx_lm.py").write_text("import no_such_module_anywhere\n")
    runs = probes.run(["mlx_lm"], [], lambda *seen: None)
    assert "no_such_module_anywhere" in runs["patched"]["hosts"]["mlx_lm"]


def test_a_probe_that_stands_still_is_said_to(fake_host, tmp_path):
    with (tmp_path / "their_patches.py").open("a") as module:
        module.write("import time\ndies = make('dies', lambda: time.sleep(60))\n")
    runs = probes.run(["mlx_lm"], ["mlx_lm.dies", "mlx_lm.fine"], lambda *seen: None, (), 5)
    for mode in ("stock", "patched"):
        found = runs[mode]["probes"]
        still = "the process made no progress for 5 s, while probing mlx_lm.dies"
        assert found["mlx_lm.dies"] == {"error": still}
        assert found["mlx_lm.fine"]["measured"] == "all is well"


def test_a_process_that_ends_at_the_import_of_a_host_is_reported_as_that(fake_host, tmp_path):
    (tmp_path / "mlx_lm.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    found = examine(tmp_path, "doctor")
    assert found["problems"] == [
        f"{words} the patches: the process was ended by SIGSEGV: no message, while importing mlx_lm"
        for words in ("without", "with")
    ]


def test_a_program_is_imported_before_the_hosts(fake_host, tmp_path):
    (tmp_path / "program.py").write_text("import sys\nassert 'mlx_lm' not in sys.modules\n")
    (tmp_path / "strange.py").write_text("import program\nraise RuntimeError('no\\nluck')\n")
    (tmp_path / "quits.py").write_text("raise SystemExit('usage: quits')\n")
    found = examine(tmp_path, "doctor", "--import", "program", "--import", "quits")
    assert found["imported"] == ["program", "quits"]
    assert found["problems"] == ["quits (--import) cannot be imported: SystemExit: usage: quits"]
    found = examine(tmp_path, "doctor", "--import", "strange")
    assert found["problems"] == ["strange (--import) cannot be imported: RuntimeError: no luck"]


def test_a_known_patcher_is_named_until_it_is_imported(fake_host, tmp_path):
    (tmp_path / "optiq.py").write_text("")
    info = tmp_path / "mlx_optiq-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: mlx-optiq\nVersion: 1.0\n")
    (tmp_path / "no.py").write_text("raise ImportError('no')\n")  # a problem, as examine expects
    found = examine(tmp_path, "doctor", "--import", "no")
    (advice,) = (text for text in found["advice"] if "optiq" in text)
    assert "mlx-optiq 1.0" in advice and "doctor --import optiq" in advice
    found = examine(tmp_path, "doctor", "--import", "no", "--import", "optiq")
    assert not any("optiq" in text for text in found["advice"])


def examine(folder, *arguments):
    """What the command prints with ``folder``'s mlx_lm as the only host; it finds a problem."""
    done = subprocess.run(
        [sys.executable, "-c", ONLY_MLX_LM, *arguments, "--no-probes", "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)


ONLY_MLX_LM = """
import sys
from mlx_gemma4_patches.doctor import examination
examination._is_installed = lambda host: host == "mlx_lm"
from mlx_gemma4_patches.__main__ import main
sys.exit(main())
"""

FAULTY, FIXED = {"faulty": True, "measured": ""}, {"faulty": False, "measured": ""}


@pytest.mark.parametrize(
    ("state", "stock", "patched", "verdict"),
    [
        (State.APPLIED, FAULTY, FIXED, "proved"),
        (State.UNVERIFIED, FAULTY, FIXED, "proved"),
        (State.NOT_NEEDED, FIXED, FIXED, "not_needed"),
        (State.NOT_NEEDED, FAULTY, FAULTY, "fault_left"),
        (State.DISABLED, FAULTY, FAULTY, "fault_left"),
        (State.FINGERPRINT_MISMATCH, FIXED, FIXED, "not_needed"),
        (State.APPLIED, FAULTY, FAULTY, "not_removed"),
        (State.APPLIED, FIXED, FIXED, "not_shown"),
        (State.APPLIED, {"error": "x"}, FIXED, "error"),
        (State.NOT_NEEDED, {"not_applicable": "x"}, {"not_applicable": "x"}, "not_applicable"),
        (State.FAILED, None, None, "fault_left"),
        (State.APPLIED, None, None, "not_probed"),
    ],
)
def test_the_verdict_follows_from_state_and_probes(state, stock, patched, verdict):
    assert examination._verdict(state, stock, patched, False, True) == verdict


def test_an_opt_in_patch_that_is_off_leaves_the_installation_healthy():
    assert examination._verdict(State.DISABLED, FAULTY, FAULTY, True, True) == "opt_in"
    assert "opt_in" not in examination.UNHEALTHY


@pytest.mark.parametrize("arguments", [[], ["doctr"], ["doctor", "--jsn"], ["explain"]])
def test_wrong_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as caught:
        command_line.main(arguments)
    assert caught.value.code == 2


def test_explain_refuses_an_unknown_id_with_the_next_step(capsys):
    assert command_line.main(["explain", "mlx_lm.nothing"]) == 2
    assert "list" in capsys.readouterr().err


def test_explain_names_what_comes_close(capsys):
    assert command_line.main(["explain", "mlx_lm.cache_ofset"]) == 2
    assert "did you mean mlx_lm.cache_offset" in capsys.readouterr().err


def test_without_mlx_a_checkpoint_is_said_not_to_be_examined(fake_host, tmp_path):
    (tmp_path / "mlx.py").write_text("raise ImportError('there is no mlx here')\n")
    (tmp_path / "model").mkdir()
    found = examine(tmp_path, "doctor", "--model", str(tmp_path / "model"))
    assert found["problems"][0].startswith("the checkpoint was not examined, which needs mlx")


def test_a_damaged_checkpoint_is_no_traceback_of_the_command(fake_host, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{" * 100_000)
    found = examine(tmp_path, "doctor", "--model", str(tmp_path / "model"))
    assert found["problems"] == []
    assert found["model"]["findings"][0]["level"] == "problem"


def test_explain_needs_no_host(tmp_path):
    (tmp_path / "mlx.py").write_text("raise ImportError('there is no mlx here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "mlx_gemma4_patches", "explain", "mlx_lm.kv_bits", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "MLX_GEMMA4_PATCHES": "0"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert "What the user sees" in told["story"]
    assert told["targets"]


def test_explain_tells_of_a_patch_that_cannot_be_loaded_in_one_line(fake_host, tmp_path):
    (tmp_path / "their_patches.py").write_text('"""Theirs."""\nraise ImportError("no\\nmlx")\n')
    done = subprocess.run(
        [sys.executable, "-m", "mlx_gemma4_patches", "explain", "mlx_lm.fine"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = "error: mlx_lm.fine could not be loaded: ImportError: no mlx"
    assert done.stderr.splitlines() == [said]


def test_without_a_host_list_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOSTS, "list"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "install mlx-lm" in line


def test_without_a_host_the_doctor_says_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOSTS, "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert "install mlx-lm" in found["problems"][0]


WITHOUT_HOSTS = """
import sys
from mlx_gemma4_patches.doctor import examination
examination._is_installed = lambda host: False
from mlx_gemma4_patches.__main__ import main
sys.exit(main())
"""
