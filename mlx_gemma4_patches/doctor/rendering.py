"""The examination as a person reads it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from .examination import UNHEALTHY

_STYLES = {"proved": "green", "not_needed": "dim", "not_applicable": "dim", "opt_in": "cyan"}
_WORDS = {"not_probed": "not probed", "opt_in": "opt-in", "not_applicable": "does not apply"}


def render(found: dict[str, Any], console: Console) -> None:
    """Print the examination."""
    environment = found["environment"]
    console.print(
        Text.assemble(
            ("mlx-gemma4-patches ", "bold"),
            environment["package"],
            f" on Python {environment['python']}, mlx {environment['mlx']} "
            f"({environment['device']}), transformers {environment['transformers']}",
        )
    )
    for host, version in environment["hosts"].items():
        console.print(f"  {host.replace('_', '-')} {version}")
    _activation(found["activation"], console)
    for patch in found["patches"]:
        _patch(patch, console)
    for title in ("conflicts", "advice", "problems"):
        for text in found[title]:
            console.print(Text.assemble((f"{title.rstrip('s')}: ", "bold yellow"), text))
    _conclusion(found, console)


def _activation(activation: dict[str, Any], console: Console) -> None:
    if not activation["on"]:
        text = "off: MLX_GEMMA4_PATCHES=0"
    elif activation["pth"]:
        text = f"by {activation['pth']}"
    else:
        text = "no .pth file is installed; a program must call mlx_gemma4_patches.activate()"
    active = "active in new processes" if activation["active_in_new_process"] else "not active"
    console.print(Text(f"  activation: {active}, {text}"), soft_wrap=True)


def _patch(patch: dict[str, Any], console: Console) -> None:
    verdict = patch["verdict"]
    words = _WORDS.get(verdict, verdict.replace("_", " "))
    style = "bold red" if verdict in UNHEALTHY else _STYLES.get(verdict, "")
    console.print(Text.assemble((f"{words:<15}", style), (patch["id"], "bold")), soft_wrap=True)
    state = patch["state"].replace("_", " ")
    lines = {"": patch["reason"] if state == words else f"{state}: {patch['reason']}"}
    if verdict in ("proved", *UNHEALTHY):
        lines |= {"without: ": _seen(patch["stock"]), "with: ": _seen(patch["patched"])}
    for label, text in lines.items():
        if text:
            console.print(Padding(Text(label + text, "dim" if label == "" else ""), (0, 0, 0, 15)))


def _seen(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    if "measured" in result:
        return result["measured"]
    return result.get("not_applicable") or f"error: {result['error']}"


def _conclusion(found: dict[str, Any], console: Console) -> None:
    for patch in found["patches"]:
        if patch["verdict"] in UNHEALTHY:
            console.print(
                Text.assemble(
                    (f"{patch['id']}: ", "bold red"),
                    f"{UNHEALTHY[patch['verdict']]}; {patch['state'].replace('_', ' ')}, "
                    f"{patch['reason']}",
                )
            )
    proved = sum(patch["verdict"] == "proved" for patch in found["patches"])
    not_needed = sum(
        patch["verdict"] in ("not_needed", "not_applicable") for patch in found["patches"]
    )
    if found["healthy"]:
        console.print(Text(f"healthy: {proved} patches proved, {not_needed} not needed", "green"))
    else:
        console.print(Text("not healthy: see the lines above", "bold red"))
