"""Arrays of a model that are no parameters, so that no loading evaluates them."""

from __future__ import annotations

import io

import mlx.core as mx

from ..patch import Finding


def finding(array: mx.array) -> Finding:
    """Whether ``array``, of a new model, is still to be computed."""
    graph = io.StringIO()
    mx.export_to_dot(graph, array)
    lazy = graph.getvalue().count("shape=rectangle")  # operations, of which evaluation leaves none
    measured = f"{lazy} operations are still to be computed, by whichever thread generates first"
    return Finding(lazy > 0, measured)


def with_freqs(original):
    """``ProportionalRoPE.__init__``, for ``surgery.wrap``."""

    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self._freqs is not None:  # else nothing is rotated
            mx.eval(self._freqs)

    return __init__
