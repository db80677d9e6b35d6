"""A cached conversation with E2B or E4B and a draft model ends in "broadcast_shapes".

What the user sees: every request to ``server --draft-model`` drops the connection where the main
model shares keys and values between layers; ``stream_generate`` with ``draft_model`` and
``prompt_cache`` raises, or says something else.

Why: the caches of both models come in one list, and ``speculative_generate_step`` cuts it at the
number of the main model's layers. KV-shared layers have no cache of their own, so the main model
gets some of the draft's.

The fix: the function sees a model that has as many layers as caches. It can be deleted when mlx-lm
cuts at the number of caches.

``python -m mlx_lm.generate`` needs none of it: it never passes both models' caches.
"""

from __future__ import annotations

import inspect

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_lm.speculation import STEP, View
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.generate import generate_step, speculative_generate_step
    from mlx_lm.models.cache import make_prompt_cache

    model = text_model("e2b")
    caches = make_prompt_cache(model) + make_prompt_cache(model)
    prompt, how = mx.array(tiny.prompt(4)), {"max_tokens": 6}
    plain = [token for token, _ in generate_step(prompt, model, **how)]
    steps = speculative_generate_step(prompt, model, model, prompt_cache=caches, **how)
    try:
        drafted = [token for token, *_ in steps]
    except ValueError as error:
        return Finding(True, str(error))
    if drafted != plain:
        measured = f"greedy tokens are {drafted} with a cache and a draft model, {plain} without"
        return Finding(True, measured)
    return Finding(False, "of a cache for two models, each gets its own layers")


def apply(surgery: Surgery) -> None:
    surgery.wrap(STEP, _split_where_the_caches_are)


def _split_where_the_caches_are(original):
    signature = inspect.signature(original)

    def speculative_generate_step(*args, **kwargs):
        from mlx_lm.models.cache import make_prompt_cache

        call = signature.bind(*args, **kwargs)
        model = call.arguments["model"]
        if is_gemma4(model) and call.arguments.get("prompt_cache") is not None:
            own = len(make_prompt_cache(model))
            call.arguments["model"] = View(model, layers=model.layers[:own])
        return original(*call.args, **call.kwargs)

    return speculative_generate_step


PATCH = Patch(
    id="mlx_lm.speculative_shared_cache",
    targets=(STEP,),
    apply=apply,
    probe=probe,
)
