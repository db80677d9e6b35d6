"""What the wrappers cost the host: Python that runs for one decode step, no device involved.

The model has the layers of E2B, or the experts of 26B-A4B, and is narrow: the graph of a step takes
as long to build as that of the real one. Calls are counted, and are the same each time; time is the
CPU's of this thread, and is not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .comparing import compare, stock_and_patched

_STEPS = 16  # of which the quickest counts: what is slower was interrupted
_NARROW = {
    **{"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2},
    **{"head_dim": 32, "global_head_dim": 32, "vocab_size": 256},
    "vocab_size_per_layer_input": 256,
}


def run(rounds: int = 15) -> Iterator[dict[str, Any]]:
    """Calls and milliseconds of a decode step's graph."""
    for size in ("e2b", "26b-a4b"):
        model = _model(size)
        what = f"mlx-lm, {size}'s layers, narrow"
        for unit, count in (("calls", 1), ("ms", rounds)):
            measures = stock_and_patched(partial(_step, model, unit))
            yield compare("host overhead of a decode step", what, unit, *measures, count)


def _model(size: str) -> Any:
    import mlx.core as mx
    from mlx_lm.models import gemma4_text

    from ..gemma4 import sizes

    config = {**sizes.text_config(size), **_NARROW}
    if config["hidden_size_per_layer_input"]:
        config["hidden_size_per_layer_input"] = 8
    if config.get("num_experts"):
        config |= {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 64}
    heads = {"num_key_value_heads": 1, "num_global_key_value_heads": 1}
    model = gemma4_text.Model(gemma4_text.ModelArgs.from_dict(config | heads))
    mx.eval(model.parameters())
    return model


def _step(model: Any, unit: str) -> float:
    import mlx.core as mx

    cache, token = model.make_cache(), mx.zeros((1, 1), mx.int32)
    mx.eval(model(mx.zeros((1, 8), mx.int32), cache=cache))
    quickest = float("inf")
    measure: Callable[[Callable], tuple[Any, float]] = _calls if unit == "calls" else _seconds
    for _ in range(2 if unit == "calls" else _STEPS):  # the first may fill caches
        logits, cost = measure(partial(model, token, cache=cache))
        mx.eval(logits)
        quickest = min(quickest, cost)
    return quickest


def _seconds(step: Callable[[], Any]) -> tuple[Any, float]:
    start = time.thread_time()
    made = step()
    return made, time.thread_time() - start


def _calls(step: Callable[[], Any]) -> tuple[Any, float]:
    count = 0

    def saw(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(saw)
    try:
        made = step()
    finally:
        sys.setprofile(before)
    return made, float(count)
