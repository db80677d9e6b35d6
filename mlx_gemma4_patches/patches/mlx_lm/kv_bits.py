"""``--kv-bits`` ends in "RotatingKVCache Quantization NYI".

What the user sees: NotImplementedError as soon as the conversation passes ``--quantized-kv-start``,
in ``generate``, chat and the server, also in the middle of an answer. With E2B and E4B a TypeError
would follow, in the first layer that shares the keys and values of a full-attention layer.

Why: ``maybe_quantize_kv_cache`` calls ``to_quantized`` of every cache that has it; that of a
sliding-window layer only raises. A KV-shared layer is handed quantized keys and values, but no
cache that says so, and takes them for arrays.

The fix: a sliding-window cache of a Gemma 4 answers with itself, and a log line says so once; a
KV-shared layer gets a stand-in for the cache (``gemma4.kv_bits``). The sliding-window caches of
other models raise as before.

It can be deleted when mlx-lm quantizes or skips them and tells KV-shared layers.

Upstream: ml-explore/mlx-lm#1573 (open), #968 and #1074 (closed).
"""

from __future__ import annotations

import mlx.core as mx
from mlx.utils import tree_reduce

from ...gemma4 import kv_bits, tiny
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...settings import log
from ...surgery import Surgery

_QUANTIZE = "mlx_lm.models.cache:RotatingKVCache.to_quantized"
_ATTENTION = "mlx_lm.models.gemma4_text:Attention.__call__"
_REDUCE = "mlx_lm.models.cache:tree_reduce"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.generate import generate_step

    prompt = mx.array(tiny.prompt(4))
    how = {"max_tokens": 2, "kv_bits": 8, "quantized_kv_start": 0}
    said = log.disabled
    log.disabled = True  # the line is for those who asked for kv_bits
    try:
        list(generate_step(prompt, text_model("e2b"), **how))
    except (NotImplementedError, TypeError) as error:
        return Finding(True, f"kv_bits=8: {str(error).partition(chr(10))[0]}")
    finally:
        log.disabled = said
    return Finding(False, "kv_bits=8 generates")


def apply(surgery: Surgery) -> None:
    try:
        surgery.resolve(_REDUCE)
    except AttributeError:  # 0.31.2 does not import what QuantizedKVCache.nbytes calls
        surgery.add(_REDUCE, tree_reduce)
    kv_bits.apply(surgery, _QUANTIZE, _ATTENTION)


PATCH = Patch(
    id="mlx_lm.kv_bits",
    targets=(_QUANTIZE, _ATTENTION),
    apply=apply,
    probe=probe,
)
