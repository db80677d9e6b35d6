"""kv_bits and a drafter together raise "'list' object has no attribute 'shape'".

What the user sees: ``--kv-bits 8 --draft-model ...`` fails in the middle of the first answer.

Why: the drafter attends to the keys and values of the model's last layers, which are then packed:
words, scales and biases instead of an array.

The fix: the drafter is given them unpacked. The model's own caches stay packed, so the text is that
of ``kv_bits`` without a drafter. It can be deleted when mlx-vlm unpacks them.

Upstream: not reported yet.
"""

from __future__ import annotations

import inspect

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_vlm.drafting import ASSISTANT, answer, drafter
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, Patch
from ...settings import log
from ...surgery import Surgery

_SET = f"{ASSISTANT}.gemma4_assistant:Gemma4AssistantDraftModel.set_shared_kv"
_VERIFY = "mlx_vlm.speculative.mtp:_mtp_verify_without_logits"
_MODEL = "mlx_vlm.models.gemma4.language:LanguageModel.__call__"


def probe() -> Finding:
    how = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0}
    said = log.disabled
    log.disabled = True  # a line is for those who asked for kv_bits
    try:
        answer(model("e2b"), tiny.prompt(4), 4, drafter("e2b"), **how)
    except (AttributeError, NotImplementedError, TypeError) as error:
        return Finding(True, f"kv_bits=8 with a drafter: {str(error).partition(chr(10))[0]}")
    finally:
        log.disabled = said
    return Finding(False, "kv_bits=8 with a drafter generates")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_SET, _unpacking_first)
    if _VERIFY in surgery.targets:
        surgery.wrap(_VERIFY, _unpacking_verified)
    else:  # 0.5.0 verifies with the model itself
        surgery.wrap(_MODEL, _unpacking_output)


def _unpacking_first(original):
    signature = inspect.signature(original)

    def set_shared_kv(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        text = call.arguments["self"].config.text_config
        call.arguments["shared_kv_states"] = _unpacked(call.arguments["shared_kv_states"], text)
        return original(*call.args, **call.kwargs)

    return set_shared_kv


def _unpacking_verified(original):
    def _mtp_verify_without_logits(lm, verify_input, prompt_cache):
        result = original(lm, verify_input, prompt_cache)
        if result is not None and str(getattr(lm, "model_type", "")).startswith("gemma4"):
            result.shared_kv_states = _unpacked(result.shared_kv_states, lm.config)
        return result

    return _mtp_verify_without_logits


def _unpacking_output(original):
    def __call__(self, *args, **kwargs):
        made = original(self, *args, **kwargs)
        if made.shared_kv_states:
            made.shared_kv_states = _unpacked(made.shared_kv_states, self.config)
        return made

    return __call__


def _unpacked(states, text):
    """Keys and values by type of layer, as arrays; ``text`` is a text model's config."""
    sizes = {"full_attention": text.global_head_dim, "sliding_attention": text.head_dim}
    return {
        kind: tuple(_plain(part, sizes[kind]) for part in pair) for kind, pair in states.items()
    }


def _plain(part, size):
    if isinstance(part, mx.array):
        return part
    words, scales, _ = part
    return mx.dequantize(
        *part, group_size=size // scales.shape[-1], bits=words.shape[-1] * 32 // size
    )


PATCH = Patch(
    id="mlx_vlm.mtp_kv_bits", targets=(_SET, _VERIFY, f"{_MODEL}(self)"), apply=apply, probe=probe
)
