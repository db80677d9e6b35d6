"""With ``--mllm`` every turn of text processes the whole conversation again.

What the user sees: without continuous batching, every turn of ``vllm-mlx serve`` with a checkpoint
that can see takes as long as the whole conversation, where there is no picture in it.

Why: the simple engine hands what is text alone to a model of mlx-lm that shares the weights, and
makes new caches for every request.

What is added: the places where Gemma 4's prompts part (``gemma4.prefix_cuts``) and the ends of
answers are kept (``gemma4.prefix_store``) and a request goes on from the longest that its prompt
begins with. It takes no more memory than ``MLX_GEMMA4_PATCHES_PREFIX_BYTES``, by default a tenth of
the device's, 8 GB at most. It can be deleted when the simple engine keeps what it has processed.

Upstream: none known.
"""

from __future__ import annotations

import importlib
import tempfile

import mlx.core as mx

from ...gemma4 import prefix_limit, tiny
from ...gemma4.prefix_store import PrefixStore
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_vlm.tiny import model
from ...hosts.vllm_mlx import text_steps
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_BUILD = "vllm_mlx.text_model_from_vlm:build_text_model"
_PREFIXES = "_gemma4_prefixes"


def probe() -> Finding:
    build = importlib.import_module("vllm_mlx.text_model_from_vlm").build_text_model
    with tempfile.TemporaryDirectory() as folder:
        made = build(model("dense"), tiny.save("dense", folder))
    if not is_gemma4(made):
        raise NotApplicable("this vllm-mlx reads text with the model that sees")
    step = importlib.import_module("mlx_lm.generate").generate_step
    again = 0

    def progress(processed: int, total: int) -> None:
        nonlocal again
        again = total

    for _ in range(2):
        for _ in step(
            mx.array(tiny.prompt(30)), made, max_tokens=1, prompt_progress_callback=progress
        ):
            pass
    return Finding(again > 2, f"of 30 tokens that come again {again} are processed")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_BUILD, _opening)
    surgery.wrap(text_steps.STEP, text_steps.going_on(_PREFIXES))


def _opening(original):
    def build_text_model(vlm_model, *args, **kwargs):
        made = original(vlm_model, *args, **kwargs)
        if is_gemma4(made) and prefix_limit.limit() != 0:
            # its weights are those of the model that sees, so what either has read is the other's
            vars(made)[_PREFIXES] = vars(vlm_model).setdefault(_PREFIXES, PrefixStore())
        return made

    return build_text_model


PATCH = Patch(id="vllm_mlx.prefix_reuse_routed", targets=(_BUILD,), apply=apply, probe=probe)
