"""Gemma 4 12B does not load: parameters named vision_embedder are not in the model.

What the user sees: "Received 11 parameters not in model: vision_embedder...".

Why: the 12B has no vision tower; a small embedder takes its place. mlx-lm's text model leaves out
the weights of towers by name, and up to 0.31.3 this name is not among them.

The fix: it is left out too. It can be deleted when no supported release is older than mlx-lm
0.32.0.

Upstream: ml-explore/mlx-lm#1349.
"""

from __future__ import annotations

from ...gemma4 import tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.models.gemma4:Model.sanitize"
_NAME = "vision_embedder."


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    model = gemma4.Model(gemma4.ModelArgs.from_dict(tiny.config("dense")))
    names = [f"{start}{_NAME}patch_dense.weight" for start in ("", "model.")]
    kept = model.sanitize(dict.fromkeys(names))
    measured = (
        f"{len(kept)} of {len(names)} weights of the vision embedder are left to the text model"
    )
    return Finding(bool(kept), measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _without_embedder)


def _without_embedder(original):
    def sanitize(self, weights):
        text = {
            name: value
            for name, value in weights.items()
            if not name.removeprefix("model.").startswith(_NAME)
        }
        return original(self, text)

    return sanitize


PATCH = Patch(
    id="mlx_lm.vision_embedder",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
