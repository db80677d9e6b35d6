"""Layer by layer: what a host computes of Gemma 4, beside transformers' numbers.

The tiny checkpoints of ``gemma4.tiny`` are read in every way of ``cases``, stock and patched in
processes of their own (``reading``), through the host's own functions (``mlx_lm``, ``mlx_vlm``),
with ``taps`` on each module; ``limits`` says how far a tensor may be off. The numbers of
transformers are stored here; tests/reference/make_trace.py makes them. ``original`` is about a
checkpoint of the user's, for which transformers itself runs.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from ..children import Ended, messages
from ..settings import PREFIX
from . import cases, reading, verdict

__all__ = ["MODES", "choose", "run", "verdict"]

MODES = ("stock", "patched")
HOSTS = tuple(cases.WAYS)
Task = tuple[str, str, str]  # a shape, a way, a dtype


def choose(words: Sequence[str]) -> tuple[list[str], list[cases.Case], list[str]]:
    """The hosts, cases and dtypes that ``words`` name; of each kind all, where none is named.

    Raises:
        ValueError: a word is none of them, or what is left is nothing.
    """
    installed = [host for host in HOSTS if find_spec(host)]
    every = list(dict.fromkeys(case for host in HOSTS for case in cases.of_host(host)))
    kinds: list[list[str]] = [
        list(HOSTS),
        list(dict.fromkeys(case.shape for case in every)),
        list(dict.fromkeys(case.way for case in every)),
        list(reading.DTYPES),
    ]
    named = [word.lower().replace("-", "_") for word in words]
    for word in named:
        if not any(word in kind for kind in kinds):
            raise ValueError(
                f"{word} is none of {', '.join(word for kind in kinds for word in kind)}"
            )
    hosts, shapes, ways, dtypes = ([w for w in kind if w in named] or kind for kind in kinds)
    hosts = [host for host in hosts if host in installed]
    wanted = [case for case in every if case.shape in shapes and case.way in ways]
    if not any(case in cases.of_host(host) for host in hosts for case in wanted):
        raise ValueError(f"no case is left: installed is {' and '.join(installed) or 'no host'}")
    return hosts, wanted, dtypes


def run(
    say: Callable[[str], None],
    hosts: Sequence[str],
    wanted: Sequence[cases.Case],
    dtypes: Sequence[str] = reading.DTYPES,
) -> Iterator[dict[str, Any]]:
    """Trace cases of the installed hosts.

    Args:
        say: called with what is read next.
        hosts: names of packages.
        wanted: cases; a host leaves out what it does not have.

    Returns:
        One at a time ``host``, ``shape``, ``way`` and ``dtype`` of a case, and for ``stock`` and
        ``patched`` what ``reading`` says of it.
    """
    for host in hosts:
        todo = [case for case in wanted if case in cases.of_host(host)]
        tasks = [(*case, dtype) for case in todo for dtype in dtypes]
        seen = {mode: _read(host, mode, tasks, say) for mode in MODES}
        for task in tasks:
            about = dict(zip(("host", "shape", "way", "dtype"), (host, *task), strict=True))
            yield about | {mode: seen[mode][task] for mode in MODES}


def _read(
    host: str, mode: str, tasks: Sequence[Task], say: Callable[[str], None]
) -> dict[Task, dict[str, Any]]:
    """What came of each task, from as many children as it takes."""
    # tf32 would round float32 to 10 bits on some devices
    environ = {**os.environ, PREFIX: "0" if mode == "stock" else "1", "MLX_ENABLE_TF32": "0"}
    found: dict[Task, dict[str, Any]] = {}
    while todo := [task for task in tasks if task not in found]:
        command = [sys.executable, "-m", reading.__name__, host, json.dumps(todo)]
        task = None
        try:
            for kind, *message in messages(command, environ, threading.Event()):
                task = (message[0], message[1], message[2])
                if kind == "begin":
                    say(f"{host.replace('_', '-')}, {', '.join(task)} ({mode})")
                else:
                    found[task] = message[3]
        except Ended as how:
            if task is None:  # before the first: there will be no second
                return {task: {"error": str(how)} for task in tasks}
            found.setdefault(task, {"error": str(how)})
    return found
