"""What one call of ``generate`` asks to stop at ends the next ones too.

What the user sees: after ``generate(eos_tokens=["x"])`` a text ends at "x" in ``batch_generate``
and in any ``generate`` with ``eos_tokens`` of its own. After ``generate(stopping_criteria=...)``
the next call fails, if the criteria are a function, or has the same criteria.

Why: ``generate`` adds to the stopping criteria of the tokenizer, or replaces them, and takes
nothing back; only a ``generate`` that asks for neither begins anew.

The fix: after the call the criteria of a Gemma 4's tokenizer are what they were before it. It can
be deleted when mlx-vlm keeps what is asked for to the call.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from ...hosts.mlx_vlm.models import says_gemma4
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULES = ("mlx_vlm.generate.dispatch", "mlx_vlm.generate")  # from 0.6.0, before
_ASKED = 7


def probe() -> Finding:
    from mlx_vlm.utils import StoppingCriteria

    try:
        module = import_module(_MODULES[0])
    except ModuleNotFoundError:
        module = import_module(_MODULES[1])
    tokenizer = SimpleNamespace(encode=lambda *_, **__: [_ASKED], eos_token_id=1)
    tokenizer.stopping_criteria = StoppingCriteria([1], tokenizer)
    with contextlib.suppress(Exception):  # there is no tokenizer to generate with
        module.generate(model("dense"), SimpleNamespace(tokenizer=tokenizer), "", eos_tokens=["x"])
    ids = tokenizer.stopping_criteria.eos_token_ids
    measured = f"after a call that asked to stop at {_ASKED} too, the next one stops at {ids}"
    return Finding(_ASKED in ids, measured)


def apply(surgery: Surgery) -> None:
    for name in _MODULES:
        if f"{name}:generate" in surgery.targets:
            surgery.wrap(f"{name}:generate", _taking_back)


def _taking_back(original):
    def generate(model: Any, processor: Any, *args: Any, **kwargs: Any) -> Any:
        asked = kwargs.get("eos_tokens") or kwargs.get("stopping_criteria")
        if not asked or not says_gemma4(model):
            return original(model, processor, *args, **kwargs)
        tokenizer = getattr(processor, "tokenizer", processor)
        criteria = tokenizer.stopping_criteria
        ids = getattr(criteria, "eos_token_ids", None)
        if isinstance(ids, list):
            criteria.eos_token_ids = list(ids)
        try:
            return original(model, processor, *args, **kwargs)
        finally:
            tokenizer.stopping_criteria = criteria
            if isinstance(ids, list):
                criteria.eos_token_ids = ids

    return generate


PATCH = Patch(
    id="mlx_vlm.eos_leak",
    targets=tuple(
        f"{module}:generate(model, processor, *, eos_tokens, stopping_criteria)"
        for module in _MODULES
    ),
    apply=apply,
    probe=probe,
)
