"""Of several recordings in one prompt or one batch, only the longest is understood.

What the user sees: with two clips of different length, or two requests with a clip each that are
answered together, Gemma 4 E2B and E4B describe sounds that nobody sent.

Why: clips are padded to the longest, and so is what the audio tower makes of them. The rows of
padding take the places of rows of the next clip.

The fix: while a Gemma 4 embeds a prompt, its tower returns the rows of the clips one after
the other, without padding. It can be deleted when ``get_input_embeddings`` heeds the mask that the
tower returns.
"""

from __future__ import annotations

from contextvars import ContextVar

import mlx.core as mx

from ...gemma4 import tiny_audio
from ...hosts.mlx_vlm import placeholders, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_TOWER = "mlx_vlm.models.gemma4.audio:AudioEncoder.__call__"

# other models have the same tower and expect a row of padding where there is one
_embedding: ContextVar[bool] = ContextVar("a Gemma 4 embeds a prompt", default=False)


def probe() -> Finding:
    model = tiny.hearing_model()
    audio = model.config.audio_token_id
    frames = (20, 60)  # 5 and 15 soft tokens
    mel = mx.array(tiny_audio.sound(60 * 128)).reshape(1, 60, 128)
    mel = mx.concatenate([mel, mel + 0.1])
    heard = mx.arange(60)[None] < mx.array(frames)[:, None]
    ids = mx.array([[2] + [audio] * 20])
    both = model.get_input_embeddings(
        ids, None, input_features=mel, input_features_mask=heard
    ).inputs_embeds[0, 1:]
    alone = [
        model.get_input_embeddings(
            mx.array([[audio] * (n // 4)]),
            None,
            input_features=mel[i : i + 1, :n],
            input_features_mask=heard[i : i + 1, :n],
        ).inputs_embeds[0]
        for i, n in enumerate(frames)
    ]
    error = mx.abs(both - mx.concatenate(alone)).max(axis=-1)
    wrong = (error > 1e-3).sum().item()
    return Finding(wrong > 0, f"{wrong} of 20 soft tokens of two clips are not those of each alone")


def apply(surgery: Surgery) -> None:
    surgery.wrap(placeholders.EMBED, _get_input_embeddings)
    surgery.wrap(_TOWER, _without_padding)


def _get_input_embeddings(original):
    def get_input_embeddings(self, *args, **kwargs):
        before = _embedding.set(True)
        try:
            return original(self, *args, **kwargs)
        finally:
            _embedding.reset(before)

    return get_input_embeddings


def _without_padding(original):
    def __call__(self, audio_mel, audio_mel_mask):
        rows, is_padding = original(self, audio_mel, audio_mel_mask)
        if not _embedding.get() or len(rows) == 1:
            return rows, is_padding
        counts = (~is_padding).sum(axis=1).tolist()
        kept = [row[:count] for row, count in zip(rows, counts, strict=True)]
        joined = mx.concatenate(kept)[None]
        return joined, mx.zeros(joined.shape[:2], mx.bool_)

    return __call__


PATCH = Patch(
    id="mlx_vlm.audio_rows", targets=(f"{placeholders.EMBED}()", _TOWER), apply=apply, probe=probe
)
