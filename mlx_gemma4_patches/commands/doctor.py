"""``doctor``: what is installed, what was applied and why, and the proof of each patch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..doctor.examination import CONTEXT, UNHEALTHY, examine
from ..doctor.report import page, seen
from ..patch import State
from .screen import ERR, OUT, one_line, paragraph, print_json, record, show_error, state_words

_STYLES = {
    **{"proved": "green", "opt_in": "cyan"},
    **dict.fromkeys(("not_needed", "not_applicable", "foreign"), "dim"),
    **dict.fromkeys(UNHEALTHY, "bold red"),
}
_WORDS = {
    **{"not_probed": "not probed", "opt_in": "opt-in", "not_applicable": "does not apply"},
    "foreign": "another's code",
}
_LEVELS = {"problem": "bold red", "warning": "bold yellow", "fact": "dim"}
_INDENT = 4


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "doctor",
        help="show what is installed and applied, prove each patch, and judge a checkpoint",
        description="Examine this installation: environment, activation, the state of every patch "
        "with its reason, and a live probe of every fault, without and with the patches. With "
        "--model, examine a checkpoint too: of its weights the headers alone are read, and nothing "
        "of it is run.",
        epilog="Examples: `mlx-gemma4-patches doctor --model mlx-community/gemma-4-e2b-it-4bit "
        "--report report.md` says what is wrong with a model and writes a page for an issue. "
        "`mlx-gemma4-patches doctor --import vmlx_engine` shows what is left of the patches in a "
        "program that changes the hosts too. Exit codes: 0 healthy, 1 a fault is left or the "
        "checkpoint has a problem, 2 usage.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--no-probes", action="store_true", help="prove nothing, only look")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="what each probe saw, stock and patched"
    )
    parser.add_argument(
        "--model", metavar="PATH", help="a model folder, or a name in the local Hugging Face cache"
    )
    parser.add_argument(
        "--context",
        type=int,
        default=CONTEXT,
        metavar="N",
        help="with --model: tokens to count the KV cache for (default: %(default)s)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write a Markdown page fit for an issue"
    )
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
    model = None
    if options.model is not None:
        from ..doctor.checkpoint_files import locate

        model = locate(options.model)
        if model is None:
            show_error(
                f"{options.model} is neither a folder nor in the local Hugging Face cache; "
                f"`hf download {options.model}` gets it"
            )
            return 2
    if options.context < 1:
        show_error("--context is a number of tokens, at least 1")
        return 2
    with ERR.status("starting") as progress:
        found = examine(
            not options.no_probes,
            lambda mode, what: progress.update(f"{what} ({mode})"),
            options.programs,
            model,
            options.context,
        )
    if options.report is not None:
        try:
            options.report.write_text(page(found, verdict_of(found), model), encoding="utf-8")
        except OSError as error:
            show_error(f"the report cannot be written: {error}")
            return 2
    if options.json:
        print_json(found)
    elif OUT.is_terminal:
        _print(found, options.verbose)
    else:
        for fields in _records(found, options.verbose):
            record(*fields)
    return 0 if found["healthy"] else 1


def verdict_words(verdict: str) -> str:
    """A verdict as the screen shows it."""
    return _WORDS.get(verdict, verdict.replace("_", " "))


def verdict_of(found: dict[str, Any]) -> str:
    """The doctor's first line."""
    counts = {verdict: 0 for verdict in ("proved", "not_needed", "not_applicable", "not_probed")}
    for patch in found["patches"]:
        counts[patch["verdict"]] = counts.get(patch["verdict"], 0) + 1
    not_needed = counts["not_needed"] + counts["not_applicable"]
    on = sum(State(patch["state"]).is_on for patch in found["patches"])
    done = f"{_count(counts['proved'], 'patch', 'patches')} proved, {not_needed} not needed"
    if counts["not_probed"] and not counts["proved"]:
        off = len(found["patches"]) - on
        done = f"{_count(on, 'patch', 'patches')} on, {off} off; nothing was probed"
    if found["healthy"]:
        return f"no problem seen: {done}" if counts["not_probed"] else f"healthy: {done}"
    left = [len(found["problems"]), sum(p["verdict"] in UNHEALTHY for p in _in_order(found))]
    of_model = [f for f in (found["model"] or {}).get("findings", ()) if f["level"] == "problem"]
    words = [
        *([_count(left[0], "problem")] if left[0] else []),
        *([_count(left[1], "patch", "patches") + " not right"] if left[1] else []),
        *([_count(len(of_model), "problem") + " of the checkpoint"] if of_model else []),
    ]
    return f"not healthy: {', '.join(words)}; {done}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _attention(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the user should know first: a word, a style, a text."""
    for text in found["problems"]:
        yield "problem", "bold red", text
    unprobed = len(found["patches"]) - len(_in_order(found))
    if unprobed:
        yield "hence", "bold red", f"{_count(unprobed, 'patch', 'patches')} could not be probed"
    for text in found["conflicts"]:
        yield "conflict", "bold yellow", text
    for text in found["advice"]:
        yield "advice", "bold yellow", text


def _fails_with_its_host(patch: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether the probe failed since its host cannot be imported, which is said once."""
    return patch["verdict"] == "error" and patch["id"].partition(".")[0] in found["unimportable"]


def _in_order(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The patches, those that are not right first, without what their host tells."""
    patches = [patch for patch in found["patches"] if not _fails_with_its_host(patch, found)]
    return sorted(patches, key=lambda patch: patch["verdict"] not in UNHEALTHY)


def _environment(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    environment = found["environment"]
    yield "mlx-gemma4-patches", environment["package"]
    yield "Python", environment["python"]
    yield "mlx", f"{environment['mlx']} ({environment['device']})"
    yield "transformers", environment["transformers"]
    for host, version in environment["hosts"].items():
        yield host.replace("_", "-"), version


def _activation(found: dict[str, Any]) -> str:
    activation = found["activation"]
    if not activation["on"]:
        text = "off: MLX_GEMMA4_PATCHES=0"
    elif activation["pth"]:
        text = f"by {activation['pth']}"
    else:
        text = "no .pth file is installed; a program must call mlx_gemma4_patches.activate()"
    active = "active in new processes" if activation["active_in_new_process"] else "not active"
    return f"{active}, {text}"


def _print(found: dict[str, Any], verbose: bool) -> None:
    paragraph("", label=verdict_of(found), style="bold green" if found["healthy"] else "bold red")
    for word, style, text in _attention(found):
        paragraph(text, label=f"{word}: ", style=style)
    if found["model"]:
        _print_model(found["model"])
    OUT.print()
    paragraph(", ".join(f"{name} {version}" for name, version in _environment(found)))
    paragraph(_activation(found), label="activation: ", style="dim")
    for program in found["imported"]:
        paragraph(program, label="imported first: ", style="dim")
    OUT.print()
    shown = _in_order(found)
    width = max((len(patch["id"]) for patch in shown), default=0)
    for patch in shown:
        _patch(patch, width, verbose or patch["verdict"] in UNHEALTHY)
    if shown and not verbose:
        paragraph("-v shows what each probe saw; `explain ID` tells what a patch is for")


def _patch(patch: dict[str, Any], width: int, in_full: bool) -> None:
    words = verdict_words(patch["verdict"])
    style = _STYLES.get(patch["verdict"], "")
    if patch["verdict"] == "not_probed":
        words = state_words(patch["state"])
    one_line(
        (f"{words:<14} ", style), (f"{patch['id']:<{width}}  ", "bold"), (patch["title"], "dim")
    )
    if in_full:
        if patch["verdict"] in UNHEALTHY:
            paragraph(UNHEALTHY[patch["verdict"]], _INDENT)
        paragraph(f"{state_words(patch['state'])}: {patch['reason']}", _INDENT)
        for mode in ("stock", "patched"):
            if text := seen(patch[mode]):
                paragraph(text, _INDENT, f"{mode}: ")


def _print_model(model: dict[str, Any]) -> None:
    OUT.print()
    paragraph(f"{model['name']}, {model.get('shape', 'of unknown shape')}", label="model: ")
    for finding in model["findings"]:
        label = f"{finding['level']}: "
        style = _LEVELS[finding["level"]]
        paragraph(f"{finding['subject']}: {finding['found']}", _INDENT // 2, label, style)
        for text in (finding["means"], finding["do"] and f"-> {finding['do']}"):
            if text:
                paragraph(text, _INDENT)
    for what, text in _of_model(model):
        paragraph(text, _INDENT // 2, f"{what}: ", "dim")


def _of_model(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a checkpoint has, in a few lines."""
    from ..doctor.checkpoint_memory import gigabytes

    if weights := model.get("weights"):
        parts = (f"{k} {about['stored_as']}" for k, about in weights.items() if k != "the rest")
        yield "stored as", "; ".join(parts)
    if memory := model.get("memory"):
        sizes = {name: gigabytes(count) for name, count in memory.items()}
        yield (
            "memory",
            f"weights {sizes['weights']}; KV cache of {memory['context']:,} tokens "
            f"{sizes['kv_cache']}, with kv_bits 8 {sizes['kv_cache_8_bits']}, with kv_bits 4 "
            f"{sizes['kv_cache_4_bits']}; each prefix snapshot {sizes['snapshot']} more",
        )
    if stops := model.get("stop_tokens"):
        sources = {s: v for s, v in stops.items() if "." in s or s == "text_config"}
        said = (f"{s} {'names none' if v is None else v}" for s, v in sources.items())
        yield "stop tokens", f"together {stops['united']}: {'; '.join(said)}"


def _records(found: dict[str, Any], verbose: bool) -> Iterator[tuple[Any, ...]]:
    yield "verdict", verdict_of(found)
    for word, _, text in _attention(found):
        yield word, text
    yield from _environment(found)
    yield "activation", _activation(found)
    for program in found["imported"]:
        yield "imported first", program
    if model := found["model"]:
        yield "model", model["name"], model.get("shape", "of unknown shape")
        for finding in model["findings"]:
            yield tuple(finding.values())
        yield from _of_model(model)
    for patch in _in_order(found):
        fields = patch["id"], state_words(patch["state"]), patch["reason"]
        if verbose or patch["verdict"] in UNHEALTHY:
            fields += (f"stock: {seen(patch['stock'])}", f"patched: {seen(patch['patched'])}")
        yield verdict_words(patch["verdict"]), *fields
