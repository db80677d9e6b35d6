"""A chat through programs built on the hosts, stock and patched: what they answer, and the states.

``python -m tests.neighbours [NAME...]``. Each program has an environment of its own, with copies of
the hosts: one of them rewrites files of mlx-lm when it is imported.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import chat
from tests.hosts.server import listens
from tests.matrix import environments

from .programs import MODEL, PORT, PROGRAMS, Program

PATIENCE = 180  # seconds for a server to start, and for an answer
PROMPTS = {"short": "[7][8][9]", "past the window": "".join(f"[{i}]" for i in range(7, 90))}
FOLDER = environments.CACHE / "neighbours"


def main(names: list[str]) -> int:
    unknown = set(names) - {program.name for program in PROGRAMS}
    if unknown:
        print(f"{', '.join(sorted(unknown))}: not one of {', '.join(p.name for p in PROGRAMS)}")
        return 2
    table = Table("program", "model", "stock", "patched", "states", title="neighbours")
    worse = 0
    for program in PROGRAMS:
        if names and program.name not in names:
            continue
        title = f"{program.name} {program.version}"
        if program.reason:
            table.add_row(title, "", "", "", f"does not run here: {program.reason}")
            continue
        try:
            python = install(program)
        except subprocess.CalledProcessError as error:
            table.add_row(title, "", "", "", f"does not install: {error}")
            continue
        for shape in ("dense", "e2b"):
            print(f"{title}, {shape} ...", flush=True)
            stock, _ = converse(program, python, shape, on=False)
            patched, states = converse(program, python, shape, on=True)
            worse += any(patched[name] is None and stock[name] is not None for name in PROMPTS)
            table.add_row(title, shape, *_words(stock, patched), states)
    Console(width=150).print(table)
    print(f"{worse} models answer on stock alone; logs of the servers: {FOLDER}")
    return 1 if worse else 0


def install(program: Program) -> Path:
    """The interpreter of an environment with the program and its hosts over a base environment."""
    folder = FOLDER / f"{program.name}-{program.version}"
    python = folder / "bin" / "python"
    base = environments.base("new")
    if not (folder / "complete").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        site /= "site-packages"
        below = site.relative_to(folder)
        line = f"import site; site.addsitedir({str(base.parents[1] / below)!r})\n"
        (site / "base.pth").write_text(line)
        pip = [python, "-m", "pip", "install", "-q"]
        for name, version in program.hosts.items():
            shutil.copytree(environments.release(name, version), site, dirs_exist_ok=True)
        subprocess.run([*pip, "--no-deps", f"{program.name}=={program.version}"], check=True)
        if program.extras:
            subprocess.run([*pip, *program.extras], check=True)
        (folder / "complete").touch()
    return python


def converse(
    program: Program, python: Path, shape: str, on: bool
) -> tuple[dict[str, str | None], str]:
    """The answers by prompt, None where there is none, and the states of the patches in words."""
    home = FOLDER / "home"
    shutil.rmtree(home, ignore_errors=True)
    model = _model(shape, home / ".fusion-mlx" / "models")  # fusion-mlx serves no other folder
    answers: dict[str, str | None] = dict.fromkeys(PROMPTS)
    with _serving(program, python, model, home, on) as (port, process):
        if port is None:
            return answers, "the server ends"
        for name, prompt in PROMPTS.items():
            with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
                answers[name] = _ask(port, program, model, prompt)
        return answers, _states(process, home / "states.json") if on else ""


def _model(shape: str, folder: Path) -> Path:
    """A tiny model that chats, with words of its own for every token."""
    made = folder / f"gemma-4-{shape}"
    made.mkdir(parents=True)
    chat.save(made)
    if shape != "dense":
        words = {file: (made / file).read_bytes() for file in os.listdir(made) if "token" in file}
        tiny.save(shape, made, shared_kv=False)
        for file, content in words.items():
            (made / file).write_bytes(content)
    return made


@contextlib.contextmanager
def _serving(
    program: Program, python: Path, model: Path, home: Path, on: bool
) -> Iterator[tuple[int | None, subprocess.Popen]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [part.replace(MODEL, str(model)).replace(PORT, str(port)) for part in program.start]
    with (FOLDER / f"{program.name}-{model.name}-{'patched' if on else 'stock'}.log").open(
        "wb"
    ) as log:
        process = subprocess.Popen(
            [python, "-m", "tests.neighbours.serve", str(home / "states.json"), *start],
            cwd=environments.ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
                **{"HF_HUB_OFFLINE": "1", "HOME": str(home), "MLX_GEMMA4_PATCHES": str(int(on))},
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # some have children
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    port = None
                    break
                time.sleep(0.2)
            yield port, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ask(port: int, program: Program, model: Path, prompt: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    body = {
        "model": program.model.format(model=model),
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 12,
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    if program.key:
        headers["Authorization"] = f"Bearer {program.key}"
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    message: dict[str, Any] = json.loads(connection.getresponse().read())["choices"][0]["message"]
    return str(message.get("content") or message.get("reasoning_content") or "")


def _states(process: subprocess.Popen, file: Path) -> str:
    process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 30
    while not file.is_file():
        if time.monotonic() > deadline or process.poll() is not None:
            return "no states: the server did not take SIGUSR1"
        time.sleep(0.1)
    status = json.loads(file.read_text())
    patches = status.get("patches", [])
    counts = ", ".join(f"{n} {state}" for state, n in Counter(p["state"] for p in patches).items())
    odd = [f"{p['id']}: {p['reason']}" for p in patches if p["state"] in ("failed", "overwritten")]
    return "; ".join([counts or status["activation"], *odd, *status.get("problems", [])])


def _words(stock: dict[str, str | None], patched: dict[str, str | None]) -> tuple[str, str]:
    def words(answers: dict[str, str | None], other: dict[str, str | None]) -> str:
        shown = []
        for name, text in answers.items():
            if text is None:
                shown.append(f"{name}: no answer")
            else:
                shown.append(f"{name}: {'the same' if text == other[name] else text[:40]}")
        return "\n".join(shown)

    return words(stock, patched), words(patched, stock)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
