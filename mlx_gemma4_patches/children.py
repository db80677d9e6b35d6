"""Child processes that report as they go, and of which none outlives the command.

A child leads a session of its own: Ctrl-C reaches the command alone, and the command ends the child
with all that the child has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

TIME_LIMIT = 180  # seconds without a message
_MARK = "\x1emlx-gemma4-patches "  # hosts print to stdout as well
_TICK = 0.1  # seconds between two looks at what else may have happened


class Stopped(Exception):
    """The command ends: nobody waits for this child any more."""


class Ended(Exception):
    """The child failed; the message says how it ended."""


def tell(*message: Any) -> None:
    """In a child: report to the command."""
    print(f"\n{_MARK}{json.dumps(message)}", flush=True)


def messages(
    command: Sequence[str],
    environ: Mapping[str, str],
    stop: threading.Event,
    time_limit: float = TIME_LIMIT,
) -> Iterator[list[Any]]:
    """Run ``command`` and yield what it tells, until it ends by itself.

    Raises:
        Ended: it failed, or said nothing for ``time_limit`` seconds.
        Stopped: ``stop`` is set.
    """
    with _errors() as errors, _child(command, environ, errors) as child:
        heard = time.monotonic()
        for line in _lines(child):
            _, mark, message = line.partition(_MARK)
            if mark:
                yield json.loads(message)
                heard = time.monotonic()
            elif stop.is_set():
                raise Stopped
            elif time.monotonic() - heard > time_limit:
                raise Ended(f"the process made no progress for {time_limit:g} s")
        try:
            child.wait(time_limit)
        except subprocess.TimeoutExpired:
            raise Ended(f"the process did not end within {time_limit:g} s") from None
        if child.returncode:
            raise Ended(_how_it_ended(child.returncode, errors))


def output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """What ``command`` prints.

    Raises:
        Ended: it failed.
    """
    with _errors() as errors, _child(command, environ, errors) as child:
        printed, _ = child.communicate()
        if child.returncode:
            raise Ended(_how_it_ended(child.returncode, errors))
        return printed.decode(errors="replace")


def _errors() -> IO[bytes]:
    return tempfile.TemporaryFile()  # a pipe would fill up unread


@contextlib.contextmanager
def _child(
    command: Sequence[str], environ: Mapping[str, str], errors: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left to end
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout:
            child.stdout.close()


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """What ``child`` prints, line by line, and an empty line in each tick without one."""
    assert child.stdout is not None
    unfinished = b""
    while True:
        if select.select([child.stdout], [], [], _TICK)[0]:
            read = os.read(child.stdout.fileno(), 1 << 16)
            if not read:
                return
            *lines, unfinished = (unfinished + read).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        elif child.poll() is not None:
            return  # what it has started keeps the pipe open
        yield ""


def _how_it_ended(code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "no message")
    how = f"ended with {code}" if code > 0 else f"was ended by {_signal(-code)}"
    return f"the process {how}: {last}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
