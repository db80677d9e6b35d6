"""``trace --model``: where a conversion loses what the original has."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.text import Text

from .screen import ERR, OUT, columns, paragraph, print_json, record, show_error

_WHAT = (
    "An error is the root mean square of the difference from transformers in float32 over that of "
    "the tensor itself. The limit is twice the error of transformers in bfloat16: what is beyond "
    "it was lost by the conversion or by the host."
)


def run(options: argparse.Namespace) -> int:
    from ..doctor.checkpoint_files import locate

    if options.words or options.plot:
        show_error("--model is traced alone: without words, without --plot")
        return 2
    folders: list[Path | None] = []
    for name in (options.model, options.reference):
        folders.append(locate(name) if name else None)
        if name and folders[-1] is None:
            show_error(
                f"{name} is neither a folder nor in the local Hugging Face cache; "
                f"`hf download {name}` gets it"
            )
            return 2
    try:
        from ..trace import checkpoint

        with ERR.status("starting") as progress:
            found = checkpoint.compare(*folders, options.prompt, progress.update)
    except (ImportError, checkpoint.CannotTrace) as error:
        show_error(error)
        return 2
    from ..trace import verdict

    if options.json:
        print_json(found)
    elif OUT.is_terminal:
        _print(found, verdict)
    else:
        _records(found)
    return 0 if found["quantized"] or verdict.first_beyond(found["tensors"]) is None else 1


def _headline(found: dict[str, Any], verdict: Any) -> tuple[str, str]:
    tensors = found["tensors"]
    first = verdict.first_beyond(tensors)
    logits = f"the logits are {tensors['logits']['error']:.1%} off"
    if first is None:
        return "bold green", f"within the limits of bfloat16; {logits}"
    style = "bold yellow" if found["quantized"] else "bold red"
    return style, f"leaves the limits of bfloat16 at {first}; {logits}"


def _print(found: dict[str, Any], verdict: Any) -> None:
    style, text = _headline(found, verdict)
    paragraph("", label=text, style=style)
    for line in _facts(found):
        paragraph(line)
    OUT.print()
    table = columns("tensor", "error", "limit", "error : limit")
    for name, tensor in found["tensors"].items():
        error = Text(f"{tensor['error']:.2e}", "red" if verdict.is_beyond(tensor) else "")
        table.add_row(name, error, f"{tensor['limit']:.2e}", f"{verdict.times(tensor):.2f}")
    OUT.print(table)
    OUT.print()
    paragraph(_WHAT, style="dim")


def _facts(found: dict[str, Any]) -> list[str]:
    here, there = found["next"]
    said = (
        f"both say {here} next" if here == there else f"it says {here} next, the original {there}"
    )
    size, what = found["memory"]
    steps = (f"{name} ({before:.2%} to {after:.2%})" for name, before, after in found["steepest"])
    return [
        f"{found['tokens']} tokens, read by {found['host'].replace('_', '-')}; {said}",
        f"the error grows most in {', '.join(steps)}",
        f"of the original's weights at most {size / 1e6:,.1f} MB were in memory at a time ({what})",
    ]


def _records(found: dict[str, Any]) -> None:
    from ..trace import verdict

    record("verdict", _headline(found, verdict)[1])
    for line in _facts(found):
        record("fact", line)
    for name, tensor in found["tensors"].items():
        record(name, f"error {tensor['error']:.3g}", f"limit {tensor['limit']:.3g}")
