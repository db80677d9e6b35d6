"""E2B and E4B do not load: parameters of the KV-shared layers are missing, or not in the model.

What the user sees: 0.31.2 says "Missing 60 parameters" for whatever transformers saved (fine-tunes,
merges, quantization-aware checkpoints). 0.31.3 says "Received 126 parameters not in model" for
conversions of Google's originals, and refuses these originals too.

Why: KV-shared layers use no k_proj, v_proj and k_norm of their own. Checkpoints come with them and
without. 0.31.2 makes such parameters; 0.31.3 does not, but keeps what the checkpoint has of them.

The fix: they are neither made nor taken from the checkpoint. It can be deleted when no supported
release is older than mlx-lm 0.32.0.

Upstream: ml-explore/mlx-lm#1158 (0.31.3, not made), #1240 (0.32.0, not taken).
"""

from __future__ import annotations

from ...gemma4 import shared_kv, tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MODULE = "mlx_lm.models.gemma4_text"
_INIT = f"{_MODULE}:Attention.__init__"
_SANITIZE = f"{_MODULE}:Model.sanitize"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    for present in (False, True):
        model = gemma4.Model(gemma4.ModelArgs.from_dict(tiny.config("e2b")))
        weights = model.sanitize(tiny.weights("e2b", shared_kv=present))
        try:
            model.load_weights(list(weights.items()))
        except ValueError as error:
            return Finding(True, f"does not load: {str(error).partition(':')[0]}")
    return Finding(False, "loads with keys and values of the KV-shared layers, and without")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_INIT, _without_unused)
    surgery.wrap(_SANITIZE, _without_unused_weights)


def _without_unused(original):
    def __init__(self, config, layer_idx, *args, **kwargs):
        original(self, config, layer_idx, *args, **kwargs)
        if layer_idx >= config.num_hidden_layers - config.num_kv_shared_layers:
            for name in shared_kv.NAMES:
                self.pop(name, None)

    return __init__


def _without_unused_weights(original):
    def sanitize(self, weights):
        first_shared = self.args.num_hidden_layers - self.args.num_kv_shared_layers
        return original(self, shared_kv.without(weights, first_shared))

    return sanitize


PATCH = Patch(
    id="mlx_lm.kv_shared_weights",
    targets=(_INIT, _SANITIZE),
    apply=apply,
    probe=probe,
)
