"""A question about an image gets the answer to the image before it.

What the user sees: in the chat, after ``/image`` with another picture, and wherever
``prompt_cache_state=`` is passed: Gemma 4 goes on seeing the first picture. Up to 0.6.2 a picture
that comes later in the conversation is taken for the first one too.

Why: a ``PromptCacheState`` finds what it has seen of a prompt by its token ids, and every picture
of a size has the same ids. Up to 0.6.2 the host also reads a part of the prompt that begins behind
a picture with the pixels of the whole.

The fix: the state remembers a hash of the pictures, films and sounds it has seen. Unless a prompt
has the very same, and none behind what is reused, it is reused up to its first one only. It can be
deleted when the state knows its images.
"""

from __future__ import annotations

import importlib
from contextvars import ContextVar
from dataclasses import astuple
from typing import Any

import mlx.core as mx

from ...gemma4 import media, tiny
from ...gemma4.placeholders import Placeholders
from ...hosts.mlx_vlm.first_part import seen_until_first
from ...hosts.mlx_vlm.models import says_gemma4
from ...hosts.mlx_vlm.tiny import model, processor
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_GENERATE = "mlx_vlm.generate:stream_generate"
_STATE = "mlx_vlm.generate:PromptCacheState"
_PREPARE = "mlx_vlm.utils:prepare_inputs"
_NOTE = "_mlx_gemma4_media"


def probe() -> Finding:
    generate = importlib.import_module("mlx_vlm.generate")
    if not hasattr(generate, "PromptCacheState"):
        raise NotApplicable("this mlx-vlm keeps no prompt caches")
    made, state = (model("dense"), processor()), generate.PromptCacheState()
    made[0].vision_tower = made[0].embed_vision = lambda features, *_: features
    ids = [*tiny.prompt(2), *[made[0].config.image_token_id] * 4, *tiny.prompt(2)]
    one, other = mx.random.normal((2, 1, 4, 192), key=mx.random.key(0))

    def answer(ids: list[int], pixels: mx.array, state: Any = None) -> Any:
        how = {"max_tokens": 1, "temperature": 0.0, "prompt_cache_state": state}
        inputs = {"input_ids": mx.array([ids]), "pixel_values": pixels}
        first, *_ = generate.stream_generate(*made, "", **inputs, **how)
        return first

    ids += [int(answer(ids, one, state).token), *tiny.prompt(2)]
    error = mx.abs(answer(ids, other, state).logprobs - answer(ids, other).logprobs).max().item()
    return Finding(
        error > 1e-2, f"the same question about another image: logits off by {error:.1e}"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_GENERATE, _stream_generate)
    surgery.wrap(_PREPARE, _prepare_inputs)


class _Seeing:
    """A state, as the host is given it for one request: it knows what is in the pictures."""

    def __init__(self, state: Any, model: Any, inputs: dict[str, Any]):
        self.media = media.digest(inputs)
        self._state = state
        self._placeholders = set(astuple(Placeholders.of(model.config)))

    @property
    def cache(self) -> Any:
        return self._state.cache

    def find_prefix_length(self, new_ids: list[int]) -> int:
        state, held = self._state, self._state.token_ids or ()
        places = [place for place, token in enumerate(new_ids) if token in self._placeholders]
        same = (one == other for one, other in zip(held, new_ids, strict=False))
        common = next((place for place, equal in enumerate(same) if not equal), len(held))
        if places and (places[-1] >= common or self.media != getattr(state, _NOTE, None)):
            state.token_ids = list(held[: places[0]])
        return state.find_prefix_length(new_ids)

    def update(self, *record: Any) -> None:
        self._state.update(*record)
        setattr(self._state, _NOTE, self.media)


# the state of the request whose inputs are being prepared
_asked: ContextVar[_Seeing | None] = ContextVar("state that wants to know the media", default=None)


def _stream_generate(original):
    def stream_generate(model, *args, **kwargs):
        state = kwargs.get("prompt_cache_state")
        if state is None or not says_gemma4(model):
            return original(model, *args, **kwargs)
        return seeing(state, model, *args, **kwargs)

    def seeing(state, model, *args, **kwargs):
        seen = kwargs["prompt_cache_state"] = _Seeing(state, model, kwargs)
        yield from seen_until_first(_asked, seen, original(model, *args, **kwargs))

    return stream_generate


def _prepare_inputs(original):
    def prepare_inputs(*args, **kwargs):
        inputs = original(*args, **kwargs)
        if (seen := _asked.get()) is not None:
            seen.media = media.digest(inputs)
        return inputs

    return prepare_inputs


PATCH = Patch(
    id="mlx_vlm.prompt_cache_images",
    targets=(
        f"{_GENERATE}(model, *, prompt_cache_state)",
        f"{_STATE}.find_prefix_length",
        f"{_STATE}.update",
        f"{_PREPARE}()",
    ),
    apply=apply,
    probe=probe,
)
