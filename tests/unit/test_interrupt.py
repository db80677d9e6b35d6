"""Ctrl-C ends a command at one press, and with it every process that the command has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

# a host whose import starts a process of its own and never ends
HOST = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""


@pytest.mark.parametrize("to", ["the group", "the command"])
@pytest.mark.parametrize(
    ("command", "processes"), [("doctor", 4), ("list", 4), ("trace", 2), ("bench", 1)]
)
def test_one_press_ends_the_command_and_all_it_has_started(tmp_path, command, processes, to):
    (tmp_path / "mlx_lm.py").write_text(HOST)
    running = start(tmp_path, command)
    started = wait_for_children(running.pid, processes)
    (os.killpg if to == "the group" else os.kill)(running.pid, signal.SIGINT)
    printed, said = running.communicate(timeout=60)
    assert (running.returncode, printed) == (130, "")
    assert said == "interrupted\n"
    _, left = psutil.wait_procs(started, timeout=30)
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_otherwise_it_leaves_nothing_either(tmp_path, number):
    (tmp_path / "mlx_lm.py").write_text(HOST)
    running = start(tmp_path, "doctor")
    started = wait_for_children(running.pid, 4)
    running.send_signal(number)
    assert running.communicate(timeout=60) == ("", "")
    assert running.returncode == 128 + number
    _, left = psutil.wait_procs(started, timeout=30)
    assert left == []


def start(folder, command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlx_gemma4_patches", command],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the group is the one that a terminal would tell
        # whoever runs the tests in the background has them ignore the key
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_children(pid: int, count: int) -> list[psutil.Process]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        children = psutil.Process(pid).children(recursive=True)
        if len(children) >= count:
            return children
        time.sleep(0.05)
    raise AssertionError(f"{count} processes did not start")
