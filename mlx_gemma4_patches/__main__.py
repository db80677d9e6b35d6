"""The command line: ``python -m mlx_gemma4_patches``, also installed as ``mlx-gemma4-patches``."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import HOSTS, __version__, matrix, registry

OUT = Console()
ERR = Console(stderr=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 healthy, 1 a fault is left, 2 usage."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except matrix.MatrixError as error:
        ERR.print(Text(f"error: {error}"))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlx-gemma4-patches",
        description="Gemma 4 on MLX as in the reference implementation, for the installed releases "
        "of mlx-lm, mlx-vlm and vllm-mlx. The patches apply themselves; these commands show them.",
        epilog="Exit codes: 0 healthy, 1 a fault is left, 2 usage. MLX_GEMMA4_PATCHES=0 switches "
        "everything off, MLX_GEMMA4_PATCHES_DISABLE=id,id single patches.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    doctor = commands.add_parser(
        "doctor",
        help="show what is installed and applied, and prove each patch",
        description="Examine this installation: environment, activation, the state of every patch "
        "with its reason, and a live probe of every fault, without and with the patches.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--no-probes", action="store_true", help="prove nothing, only look")
    doctor.set_defaults(command=_doctor)

    listing = commands.add_parser("list", help="every patch and its state on the installed hosts")
    listing.add_argument("--json", action="store_true", help="print one JSON array")
    listing.set_defaults(command=_list)

    explain = commands.add_parser("explain", help="what one patch is for, with its evidence")
    explain.add_argument("id", help="a patch id, such as mlx_lm.cache_offset")
    explain.add_argument("--json", action="store_true", help="print one JSON object")
    explain.set_defaults(command=_explain)

    bench = commands.add_parser(
        "bench",
        help="what the patches cost and save, as ratios patched : stock",
        description="Measure start-up, import, reverse lookup and decode, stock and patched "
        "interleaved in one run. Ratios under 1 mean that patched is quicker.",
    )
    bench.add_argument("--size", choices=("tiny", "e2b"), default="tiny", help="model size")
    bench.add_argument("--json", action="store_true", help="print one JSON array")
    bench.set_defaults(command=_bench)

    audit = commands.add_parser(
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
    audit.add_argument(
        "package",
        nargs="?",
        metavar="PACKAGE",
        help="mlx_lm, mlx_vlm or vllm_mlx; all that are installed if left out",
    )
    audit.add_argument("--json", action="store_true", help="print one JSON array")
    audit.set_defaults(command=_audit)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from .doctor.examination import examine
    from .doctor.rendering import render

    with ERR.status("importing the hosts") as progress:
        found = examine(
            not options.no_probes,
            lambda mode, patch_id: progress.update(f"probed {patch_id} ({mode})"),
        )
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        render(found, OUT)
    return 0 if found["healthy"] else 1


def _list(options: argparse.Namespace) -> int:
    from .doctor.examination import examine

    with ERR.status("importing the hosts"):
        patches = examine(False, lambda mode, patch_id: None)["patches"]
    rows = [{key: patch[key] for key in ("id", "state", "reason", "title")} for patch in patches]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("patch", no_wrap=True)
    for title in ("state", "reason", "what users see without it"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(row["id"], row["state"].replace("_", " "), row["reason"], row["title"])
    OUT.print(table)
    return 0


def _explain(options: argparse.Namespace) -> int:
    entry_points = {entry_point.name: entry_point for entry_point in registry.registered()}
    if options.id not in entry_points:
        ERR.print(Text(f"error: no patch is called {options.id!r}; `list` shows them all"))
        return 2
    patch = registry.load(entry_points[options.id])
    known = matrix.load()
    row = known.rows.get(options.id) or matrix.parse_row(options.id, patch.row)
    evidence = known.evidence.get(options.id, matrix.Evidence({}, {}))
    described = {
        "id": row.id,
        "title": row.title,
        "kind": row.kind,
        "story": _story(patch),
        "faulty": [{name: str(s) for name, s in part.items()} for part in row.faulty],
        "fixed_in": row.fixed_in,
        "upstream": list(row.upstream),
        "targets": list(patch.targets),
        "measured": dict(evidence.measured),
        "evidence": {outcome: list(names) for outcome, names in evidence.outcomes.items()},
    }
    if options.json:
        print(json.dumps(described, indent=2))
    else:
        _print_explanation(described)
    return 0


def _story(patch: Any) -> str:
    module = sys.modules.get(patch.apply.__module__)
    return inspect.cleandoc(module.__doc__ or "") if module else ""


def _print_explanation(described: dict[str, Any]) -> None:
    OUT.print(Text(f"{described['id']}: {described['title']}", "bold"))
    OUT.print(Text(f"\n{described['story']}\n"))
    faulty = " or ".join(
        ", ".join(f"{name} {specifier}" for name, specifier in part.items())
        for part in described["faulty"]
    )
    OUT.print(Text(f"releases with the fault: {faulty}"))
    OUT.print(Text(f"fixed upstream in: {described['fixed_in'] or 'no release yet'}"))
    for link in described["upstream"]:
        OUT.print(Text(f"upstream: {link}"))
    for target in described["targets"]:
        OUT.print(Text(f"target: {target}"))
    for mode, text in described["measured"].items():
        OUT.print(Text(f"measured {mode}: {text}"))
    for outcome, names in described["evidence"].items():
        OUT.print(Text(f"{outcome.replace('_', ' ')} on: {', '.join(names)}"))


def _bench(options: argparse.Namespace) -> int:
    from . import bench

    try:
        with ERR.status("measuring, stock and patched in turn"):
            rows = bench.run(options.size)
    except (ImportError, RuntimeError) as error:
        ERR.print(Text(f"error: {error}"))
        return 1
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("what", "stock", "patched", "patched : stock"):
        table.add_column(title)
    for row in rows:
        table.add_row(
            row["what"],
            f"{row['stock']:,.2f} {row['unit']}",
            f"{row['patched']:,.2f} {row['unit']}",
            f"{row['ratio']:.3f}",
        )
    OUT.print(table)
    return 0


def _audit(options: argparse.Namespace) -> int:
    from . import activate
    from .audit import NotInstalled, audit

    activate()  # harm is measured with the patches on
    installed = [host for host in sorted(HOSTS) if importlib.util.find_spec(host)]
    packages = [options.package] if options.package else installed
    try:
        if not packages:
            raise NotInstalled("none of mlx_lm, mlx_vlm and vllm_mlx is installed")
        with ERR.status("reading the hosts' sources"):
            found = [audit(package) for package in packages]
    except NotInstalled as error:
        ERR.print(Text(f"error: {error}"))
        return 2
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for host in found:
            _print_audit(host)
    return 1 if any(place["harmful"] for host in found for place in host["findings"]) else 0


def _print_audit(host: dict[str, Any]) -> None:
    counts = f"{len(host['findings'])} places in {host['files']} files"
    OUT.print(Text(f"{host['package']} {host['version']}: {counts}", "bold"))
    verdicts = {True: "harmful", False: "harmless", None: "unknown"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("model", "place", "what", "here"):
        table.add_column(title, overflow="fold")
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


if __name__ == "__main__":
    sys.exit(main())
