"""``--kv-bits`` ends in "RotatingKVCache Quantization NYI".

What the user sees: NotImplementedError from ``generate`` and the chat as soon as the conversation
passes ``--quantized-kv-start``, also in the middle of an answer. Up to 0.6.5 a TypeError would
follow with E2B and E4B, in the first layer that shares the keys and values of a full-attention
layer.

Why: as in mlx-lm, ``to_quantized`` is called of every cache that has it, and that of a
sliding-window layer only raises; a KV-shared layer is handed quantized keys and values, but no
cache that says so. From 0.6.6 on the last cache, which E2B and E4B share, stays unquantized.

The fix: a sliding-window cache of a Gemma 4 answers with itself, and a log line says so once; a
KV-shared layer gets a stand-in for the cache (``gemma4.kv_bits``). The sliding-window caches of
other models raise as before. The scheme ``turboquant`` and batches leave these caches alone by
themselves.

It can be deleted when mlx-vlm quantizes or skips them and tells KV-shared layers.

Upstream: ml-explore/mlx-lm#1573 (open, for both).
"""

from __future__ import annotations

import importlib

import mlx.core as mx

from ...gemma4 import kv_bits, tiny
from ...hosts.mlx_vlm.own_caches import CACHES
from ...hosts.mlx_vlm.tiny import model, processor
from ...patch import Finding, Patch
from ...settings import log
from ...surgery import Surgery

_CACHE = "RotatingKVCache"
_QUANTIZE = f"{CACHES}:{_CACHE}.to_quantized"
_ATTENTION = "mlx_vlm.models.gemma4.language:Attention.__call__"


def probe() -> Finding:
    generate = importlib.import_module("mlx_vlm.generate").stream_generate
    how = {"max_tokens": 2, "kv_bits": 8, "quantized_kv_start": 0, "temperature": 0.0}
    said = log.disabled
    log.disabled = True  # the line is for those who asked for kv_bits
    try:
        prompt = mx.array([tiny.prompt(4)])
        list(generate(model("e2b"), processor(), "", input_ids=prompt, **how))
    except (NotImplementedError, TypeError) as error:
        return Finding(True, f"kv_bits=8: {str(error).partition(chr(10))[0]}")
    finally:
        log.disabled = said
    return Finding(False, "kv_bits=8 generates")


def apply(surgery: Surgery) -> None:
    home = surgery.resolve(f"{CACHES}:{_CACHE}").__module__  # mlx-lm's before 0.6.4
    kv_bits.apply(surgery, f"{home}:{_CACHE}.to_quantized", _ATTENTION)


PATCH = Patch(
    id="mlx_vlm.kv_bits",
    targets=(_QUANTIZE, _ATTENTION),
    apply=apply,
    probe=probe,
)
