"""Every Gemma 4 request of vllm-mlx's continuous batching fails.

What the user sees: empty answers, and in the log ``unexpected keyword argument 'shared_kv'`` or
``rms_norm(): incompatible function arguments``.

Why: vllm-mlx replaces mlx-vlm's Gemma 4 ``Attention.__call__`` by a copy of one release's body:
that of mlx-vlm 0.4.4 up to vllm-mlx 0.3.0, that of 0.5.0 from 0.4.0 on (waybarrios/vllm-mlx#564).
Between these two mlx-vlm changed what goes in and what comes out.

The fix: where the copy takes other parameters than the method it replaces, the method goes back.
What the copy was for is done by ``mlx_lm.cache_offset``. It can be deleted when no supported pair
of releases disagrees, which no release of mlx-vlm can promise.
"""

from __future__ import annotations

import inspect

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, NotApplicable, Patch
from ...settings import log
from ...surgery import Surgery

_TAKE_OVER = "vllm_mlx.patches.gemma4_mllm:patch_gemma4_attention_for_batching"
_REPLACED = ("__call__", "_batch_patched")


def probe() -> Finding:
    try:
        from vllm_mlx.patches import gemma4_mllm
    except ImportError:
        raise NotApplicable("this vllm-mlx leaves Gemma 4's attention alone") from None
    from mlx_vlm.models.gemma4.language import Attention

    language_model = model("dense").language_model
    prompt = mx.array([tiny.prompt(4)])
    before = {name: value for name, value in vars(Attention).items() if name in _REPLACED}
    try:
        Attention._batch_patched = False
        gemma4_mllm.patch_gemma4_attention_for_batching()
        mx.eval(language_model(prompt, cache=language_model.make_cache()).logits)
    except (TypeError, AttributeError) as error:
        why = str(error).partition(". The")[0]
        return Finding(True, f"attention fails: {why.splitlines()[0]}")
    finally:
        for name in _REPLACED:
            delattr(Attention, name)
        for name, value in before.items():
            setattr(Attention, name, value)
    return Finding(False, "Gemma 4 runs with the attention that vllm-mlx leaves in place")


def apply(surgery: Surgery) -> None:
    def make(original):
        def patch_gemma4_attention_for_batching():
            try:
                from mlx_vlm.models.gemma4.language import Attention
            except ImportError:
                return original()
            theirs = Attention.__call__
            result = original()
            if _parameters(Attention.__call__) != _parameters(theirs):
                Attention.__call__ = theirs
                log.info("vllm-mlx's Gemma 4 attention is of another mlx-vlm: left as it was")
            return result

        return patch_gemma4_attention_for_batching

    surgery.wrap(_TAKE_OVER, make)


def _parameters(method) -> list[str]:
    return list(inspect.signature(method).parameters)


PATCH = Patch(
    id="vllm_mlx.attention_patch_mismatch",
    targets=(_TAKE_OVER,),
    apply=apply,
    probe=probe,
)
