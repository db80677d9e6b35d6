"""A checkpoint whose head repeats the embedding table does not load.

What the user sees: "Received 1 parameters not in model: lm_head.weight", for fine-tunes and merges
that were saved with the tied head in the file.

Why: mlx-vlm's Gemma 4 has no head but the embedding table, and takes what is in the file for a
parameter of its own.

The fix: a head that is a copy of the table is left out, as in transformers. One that is not is
refused as before: there is no place for it. It can be deleted when mlx-vlm leaves out such copies.
"""

from __future__ import annotations

import re

from ...gemma4 import layout, tiny
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.utils:sanitize_weights"
_PACKAGES = ("mlx_vlm.models.gemma4.", "mlx_vlm.models.gemma4_text.")
_HEAD = re.compile(r"(?:^|\.)lm_head\.(\w+)$")
_TABLE = "language_model.model.embed_tokens."


def probe() -> Finding:
    from mlx_vlm.utils import sanitize_weights

    weights = tiny.weights("dense")
    table = weights["model.language_model.embed_tokens.weight"]
    left = sanitize_weights(model("dense"), {**weights, "lm_head.weight": table})
    heads = [name for name in left if "lm_head" in name]
    measured = f"{len(heads)} copies of the embedding table are left as parameters of the model"
    return Finding(bool(heads), measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _without_copies)


def _without_copies(original):
    def sanitize_weights(model_obj, weights, config=None):
        weights = original(model_obj, weights, config)
        if type(model_obj).__module__.startswith(_PACKAGES) and not _has_head(model_obj):
            head = {name: _TABLE + found[1] for name in weights if (found := _HEAD.search(name))}
            if head and layout.is_copy(weights, head):
                return {name: value for name, value in weights.items() if name not in head}
        return weights

    return sanitize_weights


def _has_head(model_obj) -> bool:
    return "lm_head" in model_obj.language_model


PATCH = Patch(
    id="mlx_vlm.tied_head",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
