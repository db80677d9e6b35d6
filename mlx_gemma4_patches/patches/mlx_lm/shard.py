"""Gemma 4 does not run on several machines: "does not support any sharding".

What the user sees: ``mlx.launch ... mlx_lm.server`` and ``mlx_lm.utils.sharded_load`` end in "The
model does not support any sharding".

Why: two dozen models of mlx-lm define ``shard``, Gemma 4's does not.

What is added: ``Model.shard``, tensor parallelism as ``sharded_load`` asks for it. Each machine
holds its share of heads, MLPs, experts and per-layer embeddings (``gemma4.shares``), and a layer
costs two sums over all machines, with experts three. It can be deleted when mlx-lm's Gemma 4 has
``shard``. Nothing is added for checkpoints of the text model alone.

Upstream: not asked for yet.
"""

from __future__ import annotations

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_lm import sharding
from ...hosts.mlx_lm.chat import require_gemma4
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODEL = "mlx_lm.models.gemma4:Model"
_TEXT = "mlx_lm.models.gemma4_text"


def probe() -> Finding:
    require_gemma4()
    model, ids = text_model("dense"), mx.array([tiny.prompt(4)])
    if not hasattr(model, "shard"):
        return Finding(True, "the model has no shard()")
    before = model(ids)
    model.shard(mx.distributed.init())
    is_same = mx.allclose(before, model(ids), atol=1e-3).item()
    return Finding(not is_same, f"sharded, the model says {'the same' if is_same else 'another'}")


def apply(surgery: Surgery) -> None:
    surgery.add(f"{_MODEL}.shard", shard)


def shard(self, group: mx.distributed.Group | None = None) -> None:
    """Leave the model with this machine's share of its weights, in place.

    Args:
        group: the machines; all of ``mx.distributed.init()`` by default.
    """
    sharding.shard(self.language_model.model, group or mx.distributed.init())


PATCH = Patch(
    id="mlx_lm.shard",
    targets=(
        f"{_TEXT}:Attention.__call__",
        f"{_TEXT}:MLP.__call__",
        f"{_TEXT}:Experts.__call__",
        f"{_TEXT}:DecoderLayer.__call__",
        f"{_MODEL}.__call__(self, inputs, cache, input_embeddings)",
    ),
    apply=apply,
    probe=probe,
)
