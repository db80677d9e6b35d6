"""The router's choice of experts in Gemma 4 26B-A4B, cut off from the gradient.

The choice, integers, stays connected to the scores it was made from, so that a backward pass asks
for a gradient of the indices, which there is none of.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..patch import Finding


def cut_off(original: Callable) -> Callable:
    """A host's ``Router.__call__``, the indices of which ``mx.argpartition`` returns cut off.

    Behind the router is too late: the weights of the experts are gathered with the same indices.
    """

    def argpartition(*args, **kwargs):
        return mx.stop_gradient(mx.argpartition(*args, **kwargs))

    ours = SimpleNamespace(**{**vars(mx), "argpartition": argpartition})
    # the host's own code, with another `mx`: nothing else of its module sees it
    return FunctionType(
        original.__code__,
        {**original.__globals__, "mx": ours},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )


def probe(router: Any, experts: Any, width: int) -> Finding:
    """Whether the gradient of a router goes through the experts it chooses.

    Args:
        width: the size of the hidden states that both take.
    """
    x = mx.random.normal((1, 4, width), key=mx.random.key(0))
    mx.eval(x, router.parameters(), experts.parameters())  # nothing is pending when it raises

    def loss(router):
        return experts(x, *router(x)).sum()

    for training in (True, False):
        experts.train(training)
        try:
            mx.eval(nn.value_and_grad(router, loss)(router))
        except ValueError as error:
            return Finding(True, f"no gradient of the router: {str(error).partition('.')[0]}")
    return Finding(False, "the router has a gradient")
