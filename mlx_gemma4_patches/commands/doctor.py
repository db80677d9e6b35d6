"""``doctor``: what is installed, what was applied and why, and the proof of each patch."""

from __future__ import annotations

import argparse
from typing import Any

from rich.padding import Padding
from rich.text import Text

from ..doctor.examination import UNHEALTHY, examine
from .screen import ERR, OUT, print_json, state_words

_STYLES = {
    **{"proved": "green", "opt_in": "cyan"},
    **dict.fromkeys(("not_needed", "not_applicable", "foreign"), "dim"),
}
_WORDS = {
    **{"not_probed": "not probed", "opt_in": "opt-in", "not_applicable": "does not apply"},
    "foreign": "another's code",
}


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "doctor",
        help="show what is installed and applied, and prove each patch",
        description="Examine this installation: environment, activation, the state of every patch "
        "with its reason, and a live probe of every fault, without and with the patches.",
        epilog="Example: mlx-gemma4-patches doctor --import vmlx_engine shows what is left of the "
        "patches in a program that changes the hosts too. Exit codes: 0 healthy, 1 a fault is "
        "left, 2 usage.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--no-probes", action="store_true", help="prove nothing, only look")
    parser.add_argument(
        "--import",
        dest="programs",
        action="append",
        default=[],
        metavar="NAME",
        help="import this module before the hosts, in both processes; may be repeated",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with ERR.status("starting") as progress:
        found = examine(
            not options.no_probes,
            lambda mode, what: progress.update(f"{what} ({mode})"),
            options.programs,
        )
    if options.json:
        print_json(found)
    else:
        _print(found)
    return 0 if found["healthy"] else 1


def verdict_words(verdict: str) -> str:
    """A verdict as the screen shows it."""
    return _WORDS.get(verdict, verdict.replace("_", " "))


def _print(found: dict[str, Any]) -> None:
    environment = found["environment"]
    OUT.print(
        Text.assemble(
            ("mlx-gemma4-patches ", "bold"),
            environment["package"],
            f" on Python {environment['python']}, mlx {environment['mlx']} "
            f"({environment['device']}), transformers {environment['transformers']}",
        )
    )
    for host, version in environment["hosts"].items():
        OUT.print(Text(f"  {host.replace('_', '-')} {version}"))
    _activation(found["activation"])
    for program in found["imported"]:
        OUT.print(Text(f"  imported first: {program}"))
    for patch in found["patches"]:
        _patch(patch)
    for title in ("conflicts", "advice", "problems"):
        for text in found[title]:
            OUT.print(Text.assemble((f"{title.rstrip('s')}: ", "bold yellow"), text))
    _conclusion(found)


def _activation(activation: dict[str, Any]) -> None:
    if not activation["on"]:
        text = "off: MLX_GEMMA4_PATCHES=0"
    elif activation["pth"]:
        text = f"by {activation['pth']}"
    else:
        text = "no .pth file is installed; a program must call mlx_gemma4_patches.activate()"
    active = "active in new processes" if activation["active_in_new_process"] else "not active"
    OUT.print(Text(f"  activation: {active}, {text}"), soft_wrap=True)


def _patch(patch: dict[str, Any]) -> None:
    verdict = patch["verdict"]
    words = verdict_words(verdict)
    style = "bold red" if verdict in UNHEALTHY else _STYLES.get(verdict, "")
    OUT.print(Text.assemble((f"{words:<15}", style), (patch["id"], "bold")), soft_wrap=True)
    state = state_words(patch["state"])
    lines = {"": patch["reason"] if state == words else f"{state}: {patch['reason']}"}
    if verdict in ("proved", *UNHEALTHY):
        lines |= {"without: ": _seen(patch["stock"]), "with: ": _seen(patch["patched"])}
    for label, text in lines.items():
        if text:
            OUT.print(Padding(Text(label + text, "dim" if label == "" else ""), (0, 0, 0, 15)))


def _seen(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    if "measured" in result:
        return result["measured"]
    return result.get("not_applicable") or f"error: {result['error']}"


def _conclusion(found: dict[str, Any]) -> None:
    for patch in found["patches"]:
        if patch["verdict"] in UNHEALTHY:
            OUT.print(
                Text.assemble(
                    (f"{patch['id']}: ", "bold red"),
                    f"{UNHEALTHY[patch['verdict']]}; {state_words(patch['state'])}, "
                    f"{patch['reason']}",
                )
            )
    proved = sum(patch["verdict"] == "proved" for patch in found["patches"])
    not_needed = sum(
        patch["verdict"] in ("not_needed", "not_applicable") for patch in found["patches"]
    )
    if found["healthy"]:
        OUT.print(Text(f"healthy: {proved} patches proved, {not_needed} not needed", "green"))
    else:
        OUT.print(Text("not healthy: see the lines above", "bold red"))
