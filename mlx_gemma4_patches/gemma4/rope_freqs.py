"""The frequencies of the full-attention layers, which no loading of parameters evaluates."""

from __future__ import annotations

import io
from typing import Any

import mlx.core as mx

from ..patch import Finding


def probe(rope: Any) -> Finding:
    """Whether the frequencies of a new ``ProportionalRoPE`` of a host are still to be computed."""
    graph = io.StringIO()
    mx.export_to_dot(graph, rope._freqs)
    lazy = graph.getvalue().count("shape=rectangle")  # operations, of which evaluation leaves none
    measured = f"{lazy} operations are still to be computed, by whichever thread generates first"
    return Finding(lazy > 0, measured)


def evaluated(original):
    """``ProportionalRoPE.__init__``, for ``surgery.wrap``."""

    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self._freqs is not None:  # else nothing is rotated
            mx.eval(self._freqs)

    return __init__
