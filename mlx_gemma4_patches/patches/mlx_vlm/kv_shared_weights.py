"""E2B and E4B do not load: parameters of the KV-shared layers are missing, or not in the model.

What the user sees: up to 0.6.1 "Missing 60 parameters" for whatever transformers saved (fine-tunes,
merges, quantization-aware checkpoints). 0.6.2 and 0.6.3 say "Received 126 parameters not in model"
for conversions that earlier releases made.

Why: KV-shared layers use no k_proj, v_proj and k_norm of their own. Checkpoints come with them and
without. Up to 0.6.1 mlx-vlm makes such parameters. 0.6.2 does not, and drops those of a checkpoint,
but up to 0.6.3 it takes the tensors of a conversion as they stand.

The fix: they are neither made nor taken from the checkpoint. It can be deleted when no supported
release is older than mlx-vlm 0.6.4.

Upstream: Blaizzy/mlx-vlm#1301 (0.6.2, not made), #1416 (conversions).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlx.core as mx

from ...gemma4 import layout, shared_kv, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_INIT = "mlx_vlm.models.gemma4.language:Attention.__init__"
_LOAD_WEIGHTS = "mlx_vlm.models.gemma4.gemma4:Model.load_weights"


def probe() -> Finding:
    from mlx_vlm.utils import load_model

    for present in (False, True):
        weights = layout.host_names(tiny.weights("e2b", shared_kv=present))
        with tempfile.TemporaryDirectory() as name:
            folder = tiny.save("e2b", name)
            file = str(folder / "model.safetensors")
            mx.save_safetensors(file, weights, metadata={"format": "mlx"})
            try:
                load_model(Path(folder))
            except ValueError as error:
                return Finding(True, f"does not load: {str(error).partition(':')[0]}")
    return Finding(False, "loads with keys and values of the KV-shared layers, and without")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_INIT, _without_unused)
    surgery.wrap(_LOAD_WEIGHTS, _without_unused_weights)


def _without_unused(original):
    def __init__(self, config, layer_idx, *args, **kwargs):
        original(self, config, layer_idx, *args, **kwargs)
        if layer_idx >= _first_shared(config):
            for name in shared_kv.NAMES:
                self.pop(name, None)

    return __init__


def _without_unused_weights(original):
    def load_weights(self, file_or_weights, *args, **kwargs):
        if isinstance(file_or_weights, list):
            first = _first_shared(self.config.text_config)
            file_or_weights = list(shared_kv.without(dict(file_or_weights), first).items())
        return original(self, file_or_weights, *args, **kwargs)

    return load_weights


def _first_shared(text_config) -> int:
    return text_config.num_hidden_layers - text_config.num_kv_shared_layers


PATCH = Patch(
    id="mlx_vlm.kv_shared_weights",
    targets=(
        _INIT,
        "mlx_vlm.utils:load_model",  # which takes the tensors of a conversion as they stand
        "mlx_vlm.models.gemma4.language:LanguageModel.sanitize",
        "mlx_vlm.models.gemma4.gemma4:Model.sanitize",
    ),
    apply=apply,
    probe=probe,
)
