"""``prove``: tries the patches that are off on unknown code, and keeps those that hold here."""

from __future__ import annotations

import argparse
from typing import Any

from rich.padding import Padding
from rich.text import Text

from .. import proofs
from .screen import ERR, OUT, print_json, show_error


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "prove",
        help="try the patches that are off since the installed code is not known",
        description="A release of a host that is newer than this package may have code that no "
        "measured release has: patches for it are left off. This tries them, in processes of their "
        "own: each is kept if its fault shows without it and is gone with it, and if other models "
        "say the same as before, bit for bit, and Gemma 4 the tokens of transformers. What is kept "
        "is written to a file of this environment, and applied from then on to exactly this code.",
        epilog=f"The file: {proofs.path()}. Example: MLX_GEMMA4_PATCHES_PROVE=1 in the environment "
        "of a server has this done once for each new set of releases. Exit codes: 0 nothing is "
        "left off that shows a fault, 1 something is, 2 usage.",
    )
    parser.add_argument("--forget", action="store_true", help="take back all that was proved here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        return _forget() if options.forget else _prove(options.json)
    except OSError as error:
        what = "removed" if options.forget else "written, nothing was kept"
        show_error(
            f"{proofs.path()} cannot be {what}: {error.strerror or error}; run this as the user "
            "that the environment belongs to, or in a virtual environment of your own"
        )
        return 1


def _forget() -> int:
    removed = proofs.forget()
    OUT.print(Text("what was proved here is forgotten" if removed else "nothing was proved here"))
    return 0


def _prove(as_json: bool) -> int:
    from ..doctor import proving

    try:
        with ERR.status("starting") as progress:
            found = proving.prove(lambda mode, what: progress.update(f"{what} ({mode})"))
    except (proving.CannotTry, ImportError) as error:
        show_error(f"nothing could be tried: {error}; the doctor says more")
        return 1
    file = proofs.write(found)
    left = [why for why in found.left_off.values() if not why.startswith(proving.NOT_NEEDED)]
    if as_json:
        print_json({"file": str(file), **proofs.plain(found)})
    else:
        _print(found)
        _conclusion(found, str(file))
    return 1 if left else 0


def _print(found: proofs.Proofs) -> None:
    for name, proof in found.proved.items():
        _patch("proved", "green", name, {"stock: ": proof.stock, "patched: ": proof.patched})
    for name, why in found.left_off.items():
        _patch("left off", "", name, {"": why})


def _patch(word: str, style: str, name: str, lines: dict[str, Any]) -> None:
    OUT.print(Text.assemble((f"{word:<15}", style), (name, "bold")), soft_wrap=True)
    for label, text in lines.items():
        OUT.print(Padding(Text(label + text), (0, 0, 0, 15)))


def _conclusion(found: proofs.Proofs, file: str) -> None:
    if not found.proved and not found.left_off:
        OUT.print(Text("nothing to prove: no patch is off for unknown code", "green"))
        return
    text = f"{len(found.proved)} patches proved, {len(found.left_off)} left off; written to {file}"
    OUT.print(Text(text), soft_wrap=True)
