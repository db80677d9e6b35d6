"""The child that reads: one host, stock or patched, and what became of each tensor.

``python -m mlx_gemma4_patches.trace.reading HOST CASES`` tells ``begin`` before each case and
dtype, and ``case`` with what came of it.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

from ..children import tell
from ..patch import NotApplicable
from .cases import FOLDER, Case

if TYPE_CHECKING:
    from .taps import Seen

DTYPES = ("float32", "bfloat16")


def main(host: str, cases: str) -> None:
    import mlx_gemma4_patches

    mlx_gemma4_patches.activate()
    importlib.import_module(host)
    for shape, way, dtype in json.loads(cases):
        tell("begin", shape, way, dtype)
        tell("case", shape, way, dtype, _read(host, Case(shape, way), dtype))


def _read(host: str, case: Case, dtype: str) -> dict[str, Any]:
    """``tensors``, each with what ``limits.judge`` says; or ``not_applicable``, or ``error``."""
    try:
        return _judged(host, case, dtype)
    except NotApplicable as reason:
        return {"not_applicable": str(reason)}
    except Exception as error:
        if "only supports float32" in str(error):  # mlx's experts on a CPU
            return {"not_applicable": f"mlx computes no {case.shape} in {dtype} on this device"}
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _judged(host: str, case: Case, dtype: str) -> dict[str, Any]:
    import mlx.core as mx

    reader = importlib.import_module(f"{__package__}.{host}")
    model = reader.model(case)
    if dtype == "bfloat16":
        model.set_dtype(mx.bfloat16)
    ids = prompt(case)
    return compare(case, dtype, reader.read(model, case, ids).seen(ids))


def prompt(case: Case) -> list[int]:
    """The token ids of a case."""
    return _stored(case)[0][f"{case.reference}/ids"].tolist()


def compare(case: Case, dtype: str, seen: Seen) -> dict[str, Any]:
    """What ``limits.judge`` says of each tensor that was seen."""
    import numpy as np

    from . import limits

    stored, about = _stored(case)
    sizes = about["tensors"][case.reference]
    tensors = {
        name: limits.judge(size, np.array(stored[f"{case.reference}/{name}"]), *seen[name], dtype)
        for name, size in sizes.items()
        if name in seen and len(seen[name][0])  # releases differ in what they show
    }
    return {"tensors": tensors, **_notes(case, about)}


def _stored(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """transformers' numbers and what is said about them."""
    import mlx.core as mx

    file = str(FOLDER / f"{case.shape}.safetensors")
    stored, about = mx.load(file, return_metadata=True)
    return stored, json.loads(about["about"])


def _notes(case: Case, about: dict[str, Any]) -> dict[str, str]:
    if "disagreement" not in about:
        return {}
    other = about["disagreement"]
    return {
        "note": f"{case.shape}, {case.way}: {about['source'].partition(',')[0]} disagrees with "
        f"itself, from {other['tensor']} on ({other['error']:.0%} of it; {other['logits']:.0%} of "
        "the logits). generate() as it is called by default lets the tokens of an image see each "
        "other in every layer, at any distance; its masks for static caches do so in "
        "sliding-window layers alone, within the window, as do Google's own library and vLLM. "
        "The limits are those of the second rule; gemma4/vision_mask.py has the sources."
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
