"""Gemma 4 12B does not load: "Model type gemma4_unified not supported".

What the user sees: that message for the 12B, whose model_type is gemma4_unified, and for its text
model alone, gemma4_unified_text.

Why: the text model is that of the other Gemma 4 models, but up to 0.31.3 nothing says so. Nor does
anything up to 0.32.2 for the text model alone.

The fix: names that the table of model types lacks are added to it. It can be deleted when mlx-lm
has both.

Upstream: ml-explore/mlx-lm#1349 (0.32.0, gemma4_unified), #1481. The 12B's vision weights are the
business of ``vision_embedder``.
"""

from __future__ import annotations

from importlib.util import find_spec

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.utils:_get_classes"
_TYPES = {"gemma4_unified": "gemma4", "gemma4_unified_text": "gemma4_text"}


def probe() -> Finding:
    from mlx_lm.utils import _get_classes

    if find_spec("mlx_lm.models.gemma4") is None:
        raise NotApplicable("this mlx-lm has no Gemma 4")
    for name in _TYPES:
        try:
            _get_classes({"model_type": name})
        except ValueError as error:
            return Finding(True, str(error))
    return Finding(False, f"{' and '.join(_TYPES)} are known")


def apply(surgery: Surgery) -> None:
    # not by wrapping: load_model has the function as the default of a parameter
    for name, known in _TYPES.items():
        surgery.add_entry("mlx_lm.utils:MODEL_REMAPPING", name, known)


PATCH = Patch(id="mlx_lm.unified_type", targets=(_TARGET,), apply=apply, probe=probe)
