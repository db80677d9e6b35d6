"""The doctor's findings as one Markdown page, fit for an issue of a host's tracker."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r"\b(hf_|gh[pousr]_|sk-)[\w-]{8,}")
_MEASURED = ("stock", "patched")


def page(found: Mapping[str, Any], verdict: str, model: Path | None = None) -> str:
    """The page, without names of users, paths of this machine, and tokens.

    Args:
        found: what ``examination.examine`` returns.
        verdict: the doctor's first line.
        model: the checkpoint's folder as it was given.
    """
    return without_traces("\n".join(_lines(found, verdict)), model)


def without_traces(text: str, model: Path | None = None) -> str:
    """``text`` without what tells whose machine it is from."""
    places = [(str(path), name) for path, name in _places(model) if len(path.parts) > 1]
    for place, name in sorted(places, key=lambda pair: -len(pair[0])):
        text = text.replace(place, name)
    try:
        user = re.escape(getpass.getuser())
    except (OSError, KeyError):  # the system knows no name
        user = ""
    if user:
        text = re.sub(rf"(?<=[/\\]){user}(?=[/\\\s'\"]|$)", "USER", text)
    return _TOKEN.sub("TOKEN", text)


def _places(model: Path | None) -> Iterator[tuple[Path, str]]:
    if model is not None:
        yield model, "MODEL"
        yield model.resolve(), "MODEL"
    yield Path(sys.prefix), "ENVIRONMENT"
    yield Path.cwd(), "."
    yield Path.home(), "~"


def _lines(found: Mapping[str, Any], verdict: str) -> Iterator[str]:
    environment = found["environment"]
    yield f"## mlx-gemma4-patches doctor: {verdict}\n"
    yield "| what | version |\n|---|---|"
    names = ("package", "python", "platform", "device", "mlx", "transformers")
    for name in names:
        yield _row(name.replace("package", "mlx-gemma4-patches"), environment[name])
    for host, version in environment["hosts"].items():
        yield _row(host.replace("_", "-"), version)
    for title in ("problems", "conflicts", "advice"):
        if found[title]:
            yield f"\n### {title.capitalize()}\n"
            yield from (f"- {text}" for text in found[title])
    if found["model"]:
        yield from _model(found["model"])
    if found["patches"]:
        yield "\n### Patches\n"
        yield "| patch | state | proof | stock | patched |\n|---|---|---|---|---|"
    for patch in found["patches"]:
        yield _row(
            patch["id"],
            f"{patch['state']}: {patch['reason']}",
            patch["verdict"].replace("_", " "),
            *(seen(patch[mode]) for mode in _MEASURED),
        )


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### Model {model['name']}\n"
    yield f"model_type {model['model_type']}, shape {model.get('shape', 'unknown')}\n"
    yield "| | about | found | means | do |\n|---|---|---|---|---|"
    for finding in model["findings"]:
        yield _row(*finding.values())
    if weights := model.get("weights"):
        yield "\n| weights | tensors | bytes | stored as |\n|---|---|---|---|"
        for kind, about in weights.items():
            yield _row(kind, about["tensors"], f"{about['bytes']:,}", about["stored_as"])


def _row(*cells: Any) -> str:
    texts = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(texts)} |"


def seen(result: Mapping[str, Any] | None) -> str:
    """What a probe saw, in words; empty if it did not run."""
    if result is None:
        return ""
    if "measured" in result:
        return result["measured"]
    return result.get("not_applicable") or f"error: {result['error']}"
