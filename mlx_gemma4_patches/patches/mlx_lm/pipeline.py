"""Gemma 4 does not run in a pipeline: "The model does not support pipelining".

What the user sees: ``mlx.launch ... mlx_lm.server --pipeline`` and ``sharded_load`` with a
``pipeline_group`` end in "The model does not support pipelining but a pipeline_group was provided".

Why: some models of mlx-lm define ``pipeline``, Gemma 4's does not.

What is added: ``Gemma4TextModel.pipeline``, as ``sharded_load`` asks for it, and ``Model.model``,
where it looks for it. Each machine holds some of the layers, one after the other
(``gemma4.stages``), their caches and their inputs per layer; the table of words is whole
everywhere. It can be deleted when mlx-lm's Gemma 4 has ``pipeline``. Nothing is added for
checkpoints of the text model alone.

Upstream: not asked for yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_lm import pipelining
from ...hosts.mlx_lm.chat import require_gemma4
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODEL = "mlx_lm.models.gemma4:Model"
_TEXT = "mlx_lm.models.gemma4_text"
_TEXT_MODEL = f"{_TEXT}:Gemma4TextModel"


def probe() -> Finding:
    require_gemma4()
    model, ids = text_model("e2b"), mx.array([tiny.prompt(4)])
    inner = getattr(model, "model", None)
    if not hasattr(inner, "pipeline"):
        return Finding(True, "the model has no pipeline()")
    before = model(ids)
    inner.pipeline(mx.distributed.init())
    is_same = mx.allclose(before, model(ids), atol=1e-3).item()
    return Finding(
        not is_same, f"in a pipeline, the model says {'the same' if is_same else 'another'}"
    )


def apply(surgery: Surgery) -> None:
    surgery.add(f"{_TEXT_MODEL}.pipeline", pipeline)
    surgery.add(f"{_MODEL}.model", property(lambda self: self.language_model.model))


def pipeline(self, group: mx.distributed.Group, split: Sequence[int] | None = None) -> None:
    """Leave the text model with the layers of this machine, in place.

    Args:
        group: the machines; the last one has the first layers.
        split: how many layers each machine holds, that of the last layers first.

    Raises ValueError: the layers cannot be parted so; the message says why.
    """
    pipelining.pipeline(self, group, split)


PATCH = Patch(
    id="mlx_lm.pipeline",
    targets=(
        f"{_TEXT_MODEL}.__call__",
        f"{_TEXT_MODEL}._make_masks",
        f"{_TEXT_MODEL}._get_per_layer_inputs",
        f"{_TEXT_MODEL}._project_per_layer_inputs",
        f"{_TEXT}:DecoderLayer.__call__",
        f"{_TEXT}:Model.make_cache",
        f"{_MODEL}.__call__(self, inputs, cache, input_embeddings)",
    ),
    apply=apply,
    probe=probe,
)
