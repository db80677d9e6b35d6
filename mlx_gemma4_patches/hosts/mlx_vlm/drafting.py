"""mlx-vlm's own drafters of Gemma 4 with the tiny weights, for probes and tests."""

from __future__ import annotations

from typing import Any

from ...gemma4 import tiny_assistant
from ...patch import NotApplicable


def drafter(shape: str) -> Any:
    """The host's draft model of kind "mtp" for one shape of ``gemma4.tiny.SHAPES``, no files.

    Raises NotApplicable where the host has none.
    """
    try:
        from mlx_vlm.speculative.drafters import gemma4_assistant
    except ImportError:
        raise NotApplicable("this mlx-vlm has no drafters of Gemma 4") from None
    config = gemma4_assistant.ModelConfig.from_dict(tiny_assistant.config(shape))
    made = gemma4_assistant.Model(config)
    made.load_weights(list(made.sanitize(tiny_assistant.weights(shape)).items()))
    return made.eval()
