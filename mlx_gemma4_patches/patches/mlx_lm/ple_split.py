"""E2B and E4B do not load: the table of per-layer embeddings is larger than a buffer may be.

What the user sees: "[metal::malloc] Attempting to allocate 4697620480 bytes which is greater than
the maximum allowed buffer size", on devices whose limit for one buffer is below the per-layer
embedding table, whatever memory is free: Google's originals, and conversions that leave this table
unquantized.

Why: the table is one tensor (see ``gemma4.split_table``).

The fix: where the device's limit is below it, the table is read in pieces as large as the device
takes; ``save_model`` writes it whole. Elsewhere nothing changes. It can be deleted when mlx-lm
splits the table itself.

Upstream: ml-explore/mlx-lm#1103 (closed; a split by layers), #1093.
"""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path

import mlx.core as mx

from ...gemma4 import split_table, tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_LOAD = "mlx_lm.utils:load_model"
_SAVE = "mlx_lm.utils:save_model"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.utils import load_model

    name = f"model.language_model.{split_table.NAME}.weight"
    rows = tiny.weights("e2b")[name].astype(mx.bfloat16)
    limit = rows.nbytes // 3
    device_info, told = mx.device_info, mx.device_info()
    mx.device_info = lambda *args: {**told, "max_buffer_length": limit}
    try:
        with tempfile.TemporaryDirectory() as folder:
            tiny.save("e2b", Path(folder), dtype=mx.bfloat16)
            # releases differ on k/v of KV-shared layers, which do not matter here
            model, _ = load_model(Path(folder), strict=False)
    finally:
        mx.device_info = device_info
    table = model.language_model.model[split_table.NAME]
    if not mx.array_equal(table(mx.arange(len(rows))), rows):
        return Finding(True, "the table has other rows")
    parts = getattr(table, "parts", [table])
    largest = max(part.weight.nbytes for part in parts)
    measured = f"the largest buffer has {largest} bytes, the device allows {limit}"
    return Finding(largest > limit, measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD, _in_pieces)
    surgery.wrap(_SAVE, _in_one_piece)


def _in_pieces(original):
    signature = inspect.signature(original)

    def load_model(model_path, *args, **kwargs):
        if (table := split_table.too_large(Path(model_path))) is None:
            return original(model_path, *args, **kwargs)
        call = signature.bind(model_path, *args, **kwargs)
        call.apply_defaults()
        classes = call.arguments["get_model_classes"]
        call.arguments["get_model_classes"] = split_table.splitting(table, classes)
        return original(*call.args, **call.kwargs)

    return load_model


def _in_one_piece(original):
    def save_model(save_path, model, *args, **kwargs):
        with split_table.in_one_piece(model):
            return original(save_path, model, *args, **kwargs)

    return save_model


PATCH = Patch(
    id="mlx_lm.ple_split",
    targets=(f"{_LOAD}(model_path, *, get_model_classes)", f"{_SAVE}(save_path, model)"),
    apply=apply,
    probe=probe,
)
