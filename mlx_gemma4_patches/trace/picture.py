"""The errors of a trace as a picture: a panel for each case, stock against patched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .verdict import times

_COLORS = {"stock": "#c0392b", "patched": "#1f77b4"}
_LINES = {"float32": "-", "bfloat16": ":"}
_COLUMNS = 3
_WIDTH, _HEIGHT = 5.0, 2.4  # inches of a panel


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write a PNG of what ``trace.run`` has found.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if any("tensors" in row[mode] for mode in _COLORS):
            panels.setdefault((row["host"], row["way"], row["shape"]), []).append(row)
    lines = -(-len(panels) // _COLUMNS) or 1
    figure = Figure((_COLUMNS * _WIDTH, lines * _HEIGHT + 1), layout="constrained")
    axes = figure.subplots(lines, _COLUMNS, squeeze=False, sharey=True).ravel()
    for axis, ((host, way, shape), members) in zip(axes, panels.items(), strict=False):
        _panel(axis, members)
        axis.set_title(f"{host.replace('_', '-')}, {shape}, {way}", fontsize=10)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        drawn, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    figure.supylabel("error, as a multiple of the limit")
    figure.savefig(file, dpi=110)


def _panel(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    names: dict[str, None] = {}
    for row in rows:
        for mode in _COLORS:
            names |= dict.fromkeys(row[mode].get("tensors", ()))
    places = {name: place for place, name in enumerate(names)}
    for row in rows:
        for mode, color in _COLORS.items():
            tensors = row[mode].get("tensors", {})
            axis.plot(
                [places[name] for name in tensors],
                [times(tensor) for tensor in tensors.values()],
                _LINES[row["dtype"]],
                color=color,
                linewidth=2.5 if mode == "stock" else 1.2,
                label=f"{mode}, {row['dtype']}",
            )
    axis.axhline(1.0, color="black", linewidth=0.8, label="the limit")
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.1)
    layers = [
        (place, name) for name, place in places.items() if name.removeprefix("layer ").isdigit()
    ]
    axis.set_xticks([place for place, _ in layers], [name.split()[1] for _, name in layers])
    axis.set_xlabel("result of layer", fontsize=8)
    axis.tick_params(labelsize=8)
