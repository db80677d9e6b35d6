"""Gemma 4 hears every recording a little wrong.

What the user sees: transcripts that are worse than those of transformers, with E2B and E4B.

Why: a frame attends to itself and the 11 before it, a window of 12. mlx-vlm up to 0.7.3 lets it
attend to one more.

The fix: the mask without that frame. It can be deleted when releases before 0.7.4 are no longer
supported.
"""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx

from ...gemma4 import tiny_audio
from ...patch import Finding, Patch
from ...surgery import Surgery

_MASK = "mlx_vlm.models.gemma4.audio:AudioEncoder._build_causal_valid_mask"


def probe() -> Finding:
    from mlx_vlm.models.gemma4.audio import AudioEncoder

    tower = SimpleNamespace(config=SimpleNamespace(**tiny_audio.CONFIG))
    seen = AudioEncoder._build_causal_valid_mask(tower).sum(axis=-1)
    most, window = seen.max().item(), tiny_audio.CONFIG["attention_context_left"] - 1
    return Finding(most > window, f"a frame of sound hears {most} frames of a window of {window}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_MASK, _build_causal_valid_mask)


def _build_causal_valid_mask(original):
    def build_causal_valid_mask(self):
        allowed = original(self)  # (chunk, context), the context begins `past` frames earlier
        past = max(0, self.config.attention_context_left - 1)
        query, key = (mx.arange(n) for n in allowed.shape)
        return allowed & (query[:, None] + past - key[None] < past)

    return build_causal_valid_mask


PATCH = Patch(id="mlx_vlm.audio_mask", targets=(_MASK,), apply=apply, probe=probe)
