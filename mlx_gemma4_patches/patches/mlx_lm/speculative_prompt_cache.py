"""A conversation that goes on after a draft model has helped lacks the last token of the answer.

What the user sees: the second answer of ``server --draft-model``, or of ``stream_generate`` with
``draft_model`` and ``prompt_cache``, differs from that without a draft model. With ``kv_bits`` much
more is lost: the cache ends where quantization began.

Why: plain decoding leaves every token it gave in the cache; ``speculative_generate_step`` leaves
out the last one unless the draft guessed it, and what the draft itself has not read. The server
files the cache under all of them. Quantized caches replace others in a list that is a copy.

The fix: when it ends, both models read what their caches lack, and the caller's list gets the
quantized caches. It can be deleted when mlx-lm leaves both caches complete.

Upstream: none known.
"""

from __future__ import annotations

import inspect
import sys

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_lm.speculation import STEP, Caches, View
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.generate import speculative_generate_step
    from mlx_lm.models.cache import make_prompt_cache

    model = text_model("dense")
    caches = make_prompt_cache(model) + make_prompt_cache(model)
    prompt, how = mx.array(tiny.prompt(4)), {"max_tokens": 4, "num_draft_tokens": 2}
    said = list(speculative_generate_step(prompt, model, model, prompt_cache=caches, **how))
    held, all_ = min(cache.offset for cache in caches), prompt.size + len(said)
    return Finding(
        held < all_, f"after a draft model has helped, the cache holds {held} of {all_} tokens"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(STEP, _completing)


def _completing(original):
    signature = inspect.signature(original)

    def speculative_generate_step(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        if is_gemma4(call.arguments["model"]) and call.arguments.get("prompt_cache"):
            return _completed(original, call)
        return original(*args, **kwargs)

    return speculative_generate_step


class _Noting(View):
    """A model that notes the list of caches it is called with."""

    def __call__(self, inputs, cache=None, **kwargs):
        vars(self)["caches"] = cache
        return self._model(inputs, cache=cache, **kwargs)

    def read_on(self, tokens: list[int], length: int) -> None:
        """Read the last of ``tokens``, the end of a text of ``length``, that the caches lack."""
        if missing := length - self.caches[0].offset:
            self._model(mx.array([tokens[-missing:]]), cache=self.caches)
            mx.eval([cache.state for cache in self.caches])


def _completed(original, call):
    given = call.arguments
    prompt, caller = given["prompt"], given["prompt_cache"]
    length = caller[0].offset + prompt.size
    models = [_Noting(given[name], caches=[]) for name in ("model", "draft_model")]
    given["model"], given["draft_model"] = models
    said = []
    steps = original(*call.args, **call.kwargs)
    try:
        for step in steps:
            said.append(step[0])
            yield step
    except GeneratorExit:
        steps.close()
    stream = given.get("stream") or sys.modules["mlx_lm.generate"].generation_stream
    with mx.stream(stream):
        for model in models:
            if model.caches:
                model.read_on(prompt.tolist() + said, length + len(said))
    held = [cache for model in models for cache in model.caches]
    for place, cache in enumerate(held):
        if hasattr(cache, "bits"):
            Caches.origin(caller)[place] = cache


PATCH = Patch(
    id="mlx_lm.speculative_prompt_cache",
    targets=(STEP,),
    apply=apply,
    probe=probe,
)
