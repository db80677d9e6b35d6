"""``trace``: layer by layer, how far the installed hosts are from transformers."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.text import Text

from ..patch import distribution_of
from . import trace_model
from .screen import ERR, OUT, columns, paragraph, print_json, record, show_error

PROMPT = "The capital of France is Paris. The capital of Italy is"
_MODES = ("stock", "patched")
_WHAT = (
    "An error is the root mean square of the difference from transformers over that of the tensor "
    "itself. The limit is twice the error that transformers has in the same dtype, measured "
    "against itself in float64. Under uzu stands how many values are off by uzu's rule, and how "
    "many may be; in bfloat16 that rule finds too many in transformers itself."
)


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "trace",
        help="layer by layer, how far the installed hosts are from transformers",
        description="Have tiny Gemma 4 models read a text - at once, in chunks, as a row of a "
        "batch, behind a cached turn -, an image and a sound, with the functions that users of "
        "the hosts call, and compare every tensor on the way with stored numbers of transformers: "
        "embeddings, per-layer inputs, attention, MLP, experts and result of each layer, shared "
        "keys and values, features of media, logits. Says where the first one leaves its limit, "
        "without the patches and with them. With --model, a conversion of yours reads a prompt of "
        "yours beside the original in transformers: of the original, one layer is in memory at a "
        "time. " + _WHAT,
        epilog="Examples: `mlx-gemma4-patches trace` takes a minute. `mlx-gemma4-patches trace "
        "mlx_vlm dense image -v` shows each tensor of one case. `mlx-gemma4-patches trace --plot "
        "errors.png` draws them. `mlx-gemma4-patches trace --model gemma-4-31b-it-4bit --reference "
        "google/gemma-4-31B-it` says where your 4-bit loses what. Exit codes: 0 all within the "
        "limits with the patches (a quantized model may leave them), 1 something is not, 2 usage.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="leave out the rest: a host (mlx_lm, mlx_vlm), a model (e2b, moe, dense, 12b), a way "
        "of reading (text, chunked, batched, cached, image, sound), a dtype (float32, bfloat16)",
    )
    parser.add_argument(
        "--model", metavar="PATH", help="a model folder, or a name in the local Hugging Face cache"
    )
    parser.add_argument(
        "--reference",
        metavar="PATH",
        help="with --model: the original, likewise; the model itself if left out",
    )
    parser.add_argument(
        "--prompt",
        default=PROMPT,
        metavar="TEXT",
        help="with --model: what is read (default: %(default)r)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show each tensor")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the errors")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.model is not None:
        return trace_model.run(options)
    if options.reference is not None:
        show_error("--reference is the original of a --model")
        return 2
    try:
        from .. import trace
    except ImportError as error:
        show_error(f"mlx cannot be imported: {error}; the doctor says more")
        return 1
    try:
        chosen = trace.choose(options.words)
    except ValueError as error:
        show_error(error)
        return 2
    if options.plot and not _can_draw(options.plot):
        return 2
    with ERR.status("starting") as progress:
        rows = list(trace.run(progress.update, *chosen))
    if options.plot:
        from ..trace import picture

        try:
            picture.draw(rows, options.plot)
        except OSError as error:
            show_error(f"the picture cannot be written: {error}")
            return 2
    if options.json:
        print_json(rows)
    elif OUT.is_terminal:
        _print(rows, options.verbose)
    else:
        _records(rows, options.verbose)
    return 0 if all(trace.verdict.is_right(row["patched"]) for row in rows) else 1


def _can_draw(file: Path) -> bool:
    if find_spec("matplotlib") is None:
        show_error("--plot needs matplotlib: pip install 'mlx-gemma4-patches[trace]'")
    elif file.suffix != ".png":
        show_error("--plot writes a file that ends in .png")
    elif not file.parent.is_dir():
        show_error(f"there is no folder {file.parent}")
    else:
        return True
    return False


def _name(row: dict[str, Any]) -> str:
    return f"{row['shape']}, {row['way']}, {row['dtype']}"


def _verdict(rows: list[dict[str, Any]]) -> tuple[str, str]:
    from ..trace import verdict

    read = [row for row in rows if any("tensors" in row[mode] for mode in _MODES)]
    wrong = {mode: sum(not verdict.is_right(row[mode]) for row in rows) for mode in _MODES}
    counted = f"of {len(read)} cases {wrong['stock']} leave the limits without the patches"
    if wrong["patched"]:
        return "bold red", f"{counted}, {wrong['patched']} with them"
    return "bold green", f"{counted}, none with them"


def _print(rows: list[dict[str, Any]], verbose: bool) -> None:

    style, text = _verdict(rows)
    paragraph("", label=text, style=style)
    for host in dict.fromkeys(row["host"] for row in rows):
        OUT.print()
        distribution = distribution_of(host)
        paragraph("", label=f"{distribution} {version(distribution)}")
        members = [row for row in rows if row["host"] == host]
        if verbose:
            for row in members:
                _print_tensors(row)
            continue
        table = columns("case", *_MODES)
        for row in members:
            table.add_row(_name(row), *(_cell(row[mode]) for mode in _MODES))
        OUT.print(table)
    OUT.print()
    for reason in _said(rows, "not_applicable"):
        paragraph(reason, label="-: ")
    for note in _said(rows, "note"):
        paragraph(note)
    paragraph(_WHAT, style="dim")
    if not verbose:
        paragraph("-v shows each tensor")


def _cell(seen: dict[str, Any]) -> Text:
    from ..trace import verdict

    return Text(verdict.words(seen), "" if verdict.is_right(seen) else "red")


def _said(rows: list[dict[str, Any]], key: str) -> list[str]:
    """What cases say of themselves under ``key``, each once."""
    return list(
        dict.fromkeys(row[mode][key] for row in rows for mode in _MODES if key in row[mode])
    )


def _print_tensors(row: dict[str, Any]) -> None:
    from ..trace import verdict

    paragraph("", label=_name(row))
    table = columns("tensor", "limit", *_MODES, *(f"uzu, {mode}" for mode in _MODES))
    for name in _tensors(row):
        found = [row[mode].get("tensors", {}).get(name) for mode in _MODES]
        limit = next(tensor["limit"] for tensor in found if tensor)
        errors = (
            Text(f"{tensor['error']:.1e}", "red" if verdict.is_beyond(tensor) else "")
            if tensor
            else Text("-")
            for tensor in found
        )
        counts = (f"{t['violations']}, {t['allowed']} allowed" if t else "-" for t in found)
        table.add_row(name, f"{limit:.1e}", *errors, *counts)
    if table.row_count:
        OUT.print(table)
    for mode in _MODES:
        if "tensors" not in row[mode]:
            paragraph(_why(row[mode]), label=f"{mode}: ")


def _why(seen: dict[str, Any]) -> str:
    return seen.get("not_applicable") or f"error: {seen['error']}"


def _tensors(row: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for mode in _MODES for name in row[mode].get("tensors", ())))


def _records(rows: list[dict[str, Any]], verbose: bool) -> None:
    from ..trace import verdict

    record("verdict", _verdict(rows)[1])
    for note in _said(rows, "note"):
        record("note", note)
    for row in rows:
        fields = (row["host"], row["shape"], row["way"], row["dtype"])
        for mode in _MODES:
            seen = row[mode]
            words = verdict.words(seen) if "tensors" in seen else _why(seen)
            record(*fields, mode, words)
            for name, tensor in seen.get("tensors", {}).items() if verbose else ():
                figures = (f"{key} {value}" for key, value in tensor.items())
                record(*fields, mode, name, *figures)
