"""``audit``: which models of a host read a cache in ways that batches do not forgive."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from rich.text import Text

from .. import HOSTS, activate
from .screen import ERR, OUT, columns, print_json, show_error


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "audit",
        help="which models of a host read a cache in ways that batches do not forgive",
        description="Scan the source of every model of an installed host for two habits. One is an "
        "offset that is taken from a cache before update_and_fetch and used after it, without a "
        "copy: batch caches that count in place change it in between, and batched answers go "
        "wrong. mx.array(cache.offset) is a copy. The other is `keys, values = cache.state`: the "
        "state of a batch cache has four values. Whether a place does harm is measured on the "
        "caches of this installation, with the patches that are on.",
        epilog="Example: mlx-gemma4-patches audit mlx_vlm. Exit codes: 0 nothing harmful, 1 a "
        "harmful place is left, 2 usage.",
    )
    parser.add_argument(
        "package",
        nargs="?",
        metavar="PACKAGE",
        help="mlx_lm, mlx_vlm or vllm_mlx; all that are installed if left out",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from ..audit import NotInstalled, audit

    activate()  # harm is measured with the patches on
    installed = [host for host in sorted(HOSTS) if importlib.util.find_spec(host)]
    packages = [options.package] if options.package else installed
    try:
        if not packages:
            raise NotInstalled("none of mlx_lm, mlx_vlm and vllm_mlx is installed")
        with ERR.status("reading the hosts' sources"):
            found = [audit(package) for package in packages]
    except NotInstalled as error:
        show_error(error)
        return 2
    if options.json:
        print_json(found)
    else:
        for host in found:
            _print(host)
    return 1 if any(place["harmful"] for host in found for place in host["findings"]) else 0


def _print(host: dict[str, Any]) -> None:
    counts = f"{len(host['findings'])} places in {host['files']} files"
    OUT.print(Text(f"{host['package']} {host['version']}: {counts}", "bold"))
    verdicts = {True: "harmful", False: "harmless", None: "unknown"}
    table = columns("model", "place", "what", "here")
    for place in host["findings"]:
        what = f"offset used again in line {place['used']}"
        if place["kind"] == "state":
            what = "state unpacked into two values"
        line = f"{place['file']}:{place['line']} {place['function']}"
        table.add_row(place["model"], line, what, verdicts[place["harmful"]])
    if host["findings"]:
        OUT.print(table)
    for why in sorted({place["why"] for place in host["findings"]}):
        OUT.print(Text(f"  {why}"))
    for file in host["unread"]:
        OUT.print(Text(f"  not read: {file['file']}: {file['reason']}"))
