"""Training Gemma 4 26B-A4B fails: "Cannot calculate VJP with respect to indices".

What the user sees: with mlx 0.32, LoRA, DoRA and full fine-tuning of the 26B-A4B end in the first
step with "[gather] Cannot calculate VJP with respect to indices", after a healthy validation loss.
With any mlx, a gradient of the model in evaluation mode ends with "[GatherMM] Cannot ...".

Why: the router's choice of experts, integers, stays connected to the scores it was made from, so
the backward pass asks for a gradient of the indices.

The fix: the choice is cut off from the gradient inside the router, as ``mx.argpartition`` returns
it. Behind the router is too late: the weights of the experts are gathered with the same indices.
The forward pass is the same. It can be deleted when no supported release is older than mlx-lm
0.32.0.

Upstream: ml-explore/mlx-lm#1897, #1856 (0.32.0).
"""

from __future__ import annotations

from types import FunctionType, SimpleNamespace

import mlx.core as mx
import mlx.nn as nn

from ...gemma4 import tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.models.gemma4_text:Router.__call__"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4_text
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    config = gemma4_text.ModelArgs.from_dict(tiny.config("moe")["text_config"])
    router, experts = gemma4_text.Router(config), gemma4_text.Experts(config)
    x = mx.random.normal((1, 4, config.hidden_size), key=mx.random.key(0))

    def loss(router):
        return experts(x, *router(x)).sum()

    for training in (True, False):
        experts.train(training)
        try:
            mx.eval(nn.value_and_grad(router, loss)(router))
        except ValueError as error:
            return Finding(True, f"no gradient of the router: {str(error).partition('.')[0]}")
    return Finding(False, "the router has a gradient")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_choice_cut_off)


def _with_choice_cut_off(original):
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


PATCH = Patch(
    id="mlx_lm.moe_gradient",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
