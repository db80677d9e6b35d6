"""A prompt with two recordings ends in "Failed to process inputs with error".

What the user sees: a warning that the first file is used, and then an error without a reason.

Why: the processor of Gemma 4 takes any number of clips, but up to 0.7.2 the host keeps the first
one only, and all of their markers in the prompt.

The fix: the clips of a Gemma 4 count as one. It can be deleted when releases before 0.7.3 are no
longer supported.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from ...hosts.mlx_vlm import models
from ...patch import Finding, Patch
from ...surgery import Surgery

_PREPARE = "mlx_vlm.utils:prepare_inputs"


def probe() -> Finding:
    from mlx_vlm.models.gemma4.processing_gemma4 import Gemma4Processor
    from mlx_vlm.utils import prepare_inputs

    given = []

    class Processor(Gemma4Processor):
        """Takes down what it is given."""

        __module__ = Gemma4Processor.__module__

        def __init__(self):
            pass

        def __call__(self, text=None, images=None, audio=None, **how):
            given.append(len(audio))
            return {"input_ids": [[0]], "attention_mask": [[1]]}

    with contextlib.redirect_stdout(io.StringIO()):  # the host warns there
        prepare_inputs(Processor(), audio=[np.zeros(640, np.float32)] * 2, prompts="")
    return Finding(given[0] < 2, f"of 2 clips the processor is given {given[0]}")


class _Clips(list):
    """Clips that count as one, wherever they are looked at in turn."""

    def __len__(self) -> int:
        return min(1, super().__len__())


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPARE, _prepare_inputs)


def _prepare_inputs(original):
    def prepare_inputs(processor, images=None, audio=None, *args, **kwargs):
        if isinstance(audio, (list, tuple)) and models.is_gemma4(processor):
            audio = _Clips(audio)
        return original(processor, images, audio, *args, **kwargs)

    return prepare_inputs


PATCH = Patch(id="mlx_vlm.audio_several", targets=(_PREPARE,), apply=apply, probe=probe)
