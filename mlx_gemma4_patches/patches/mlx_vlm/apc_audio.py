"""A question about a sound or a video gets the answer to another one, from the prefix cache.

What the user sees: with the prefix cache (``APC_ENABLED=1``, ``apc_manager=``), of two requests
with the same words and other sounds of the same length, the second is answered as the first.

Why: up to 0.6.6 the key of a prompt has a hash of its images, but none of its sounds and videos,
and every sound of a length has the same token ids.

The fix: what is hashed of a prompt has its sounds and videos, too. It can be deleted when releases
before 0.6.7 are no longer supported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ...hosts.mlx_vlm.first_part import seen_until_first
from ...hosts.mlx_vlm.media_key import OfAllMedia, media_key
from ...hosts.mlx_vlm.models import says_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_GENERATE = "mlx_vlm.generate:stream_generate"
_PREPARE = "mlx_vlm.utils:prepare_inputs"
_HASH = "mlx_vlm.apc:hash_image_payload"
_BATCH = "mlx_vlm.generate:BatchGenerator._apc_extra_hash"
_HEARD = ("pixel_values_videos", "video_position_ids", "input_features", "input_features_mask")


def probe() -> Finding:
    if importlib.util.find_spec("mlx_vlm.apc") is None:
        raise NotApplicable("this mlx-vlm has no prefix cache")
    generate = importlib.import_module("mlx_vlm.generate")
    one, other = mx.zeros((1, 4, 8)), mx.ones((1, 4, 8))
    gemma4 = SimpleNamespace(config=SimpleNamespace(model_type="gemma4"))
    batch = SimpleNamespace(apc_manager=object(), model=gemma4)
    key = generate.BatchGenerator._apc_extra_hash
    keys = [key(batch, {"input_features": sound}) for sound in (one, other)]
    return Finding(
        keys[0] == keys[1],
        "the same key for other sounds" if keys[0] == keys[1] else "other sounds have another key",
    )


class _Prompt:
    """The sounds and videos of a prompt that is being prepared."""

    def __init__(self, inputs: Mapping[str, Any]):
        self.digest = _digest(inputs)


_current: ContextVar[_Prompt | None] = ContextVar("prompt that is being prepared", default=None)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_GENERATE, _stream_generate)
    surgery.wrap(_PREPARE, _prepare_inputs)
    surgery.wrap(_HASH, _hash_image_payload)
    surgery.wrap(_BATCH, _extra_hash)


def _digest(inputs: Mapping[str, Any]) -> int:
    """The key of what is to be heard."""
    return media_key({name: inputs.get(name) for name in _HEARD})


def _stream_generate(original):
    def stream_generate(model, *args, **kwargs):
        has_key = kwargs.get("apc_manager") is not None
        if not has_key or not says_gemma4(model):
            return original(model, *args, **kwargs)
        return noted(model, *args, **kwargs)

    def noted(model, *args, **kwargs):
        prompt = _Prompt(kwargs)
        yield from seen_until_first(_current, prompt, original(model, *args, **kwargs))

    return stream_generate


def _prepare_inputs(original):
    def prepare_inputs(*args, **kwargs):
        inputs = original(*args, **kwargs)
        if (prompt := _current.get()) is not None:
            prompt.digest = _digest(inputs)
        return inputs

    return prepare_inputs


def _hash_image_payload(original):
    def hash_image_payload(pixel_values=None, image_ref=None):
        made = original(pixel_values=pixel_values, image_ref=image_ref)
        prompt = _current.get()
        return made ^ prompt.digest if prompt is not None else made

    return hash_image_payload


def _extra_hash(original):
    def _apc_extra_hash(self, prompt_kwargs):
        made = original(self, prompt_kwargs)
        given = prompt_kwargs or {}
        if isinstance(given.get("_apc_image_hash"), OfAllMedia):
            return made
        if self.apc_manager is None or not says_gemma4(self.model):
            return made
        return made ^ _digest(given)

    return _apc_extra_hash


PATCH = Patch(
    id="mlx_vlm.apc_audio",
    targets=(_GENERATE, _PREPARE, _HASH, _BATCH),
    apply=apply,
    probe=probe,
)
