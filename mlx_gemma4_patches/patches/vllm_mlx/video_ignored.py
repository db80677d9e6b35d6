"""With continuous batching Gemma 4 never sees a video.

What the user sees: after a long wait an answer that has nothing to do with the video; it is the
same without one.

Why: the frames are prepared as images. The prompt has a marker of a video and none of images, so
that what the vision tower makes of the frames is thrown away. With mlx-vlm before 0.6.1 it has no
marker at all: chat templates know the type "video", and the host leaves it "video_url".

The fix: for Gemma 4 no frames are taken. In their place the video's file goes the way of an image
as far as mlx-vlm's ``prepare_inputs``, where it becomes one of ``videos``, and templates are given
the type that they know. It can be deleted when vllm-mlx does both.
"""

from __future__ import annotations

from contextvars import ContextVar
from inspect import signature
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ...gemma4 import channels
from ...hosts.mlx_vlm import models
from ...hosts.vllm_mlx import video
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_PREPROCESS = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator._preprocess_request"
_FRAMES = "vllm_mlx.models.mllm:extract_video_frames_smart"
_SAVED = "vllm_mlx.models.mllm:save_frames_to_temp"
_TEMPLATE = "vllm_mlx.engine.batched:BatchedEngine._apply_chat_template"
_PREPARE = "mlx_vlm.utils:prepare_inputs"  # called as it is where there is no film

_of_gemma4: ContextVar[bool] = ContextVar("whether a request for Gemma 4 is read", default=False)


class _Film(str):
    """The file of a video, where the host has those of frames."""


def probe() -> Finding:
    from mlx_vlm.models.gemma4 import processing_gemma4
    from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest

    video.skip_unless_taken()
    given = []

    class Processor(processing_gemma4.Gemma4Processor):
        """Takes down what it is given."""

        __module__ = processing_gemma4.__name__

        def __init__(self):
            self.tokenizer = SimpleNamespace(pad_token="", eos_token="")

        def __call__(self, text=None, images=None, audio=None, videos=None, **how):
            given.extend(videos or [])
            return {"input_ids": mx.array([[0]]), "attention_mask": mx.array([[1]])}

    batches = SimpleNamespace(
        model=None,
        processor=Processor(),
        vision_cache=SimpleNamespace(get_pixel_cache=lambda *_: None),
        _stats=SimpleNamespace(num_images_processed=0, vision_encoding_time=0.0),
    )
    request = MLLMBatchRequest(uid=0, request_id="", prompt="<|video|>", videos=[video.film()])
    MLLMBatchGenerator._preprocess_request(batches, request)
    if len(given) != 1:
        return Finding(True, f"of 1 video the processor is given {len(given)}")
    kind = _type_in_template()
    return Finding(kind != "video", f"of 1 video the processor is given 1, the template a {kind}")


def _type_in_template() -> str:
    """What the chat template is told that a part with a video is."""
    from vllm_mlx.engine.batched import BatchedEngine

    class Tokenizer:
        def convert_tokens_to_ids(self, _):
            return channels.OPENING_ID

        def apply_chat_template(self, messages, **_):
            return messages[0]["content"][0]["type"]

    engine = SimpleNamespace(
        _is_mllm=True,
        is_mllm=True,
        _model_name="gemma-4",
        _processor=Tokenizer(),
        tokenizer=Tokenizer(),
        _prepare_mllm_messages=BatchedEngine._prepare_mllm_messages,
    )
    part = {"type": "video_url", "video_url": {"url": "-"}}
    return BatchedEngine._apply_chat_template(engine, [{"role": "user", "content": [part]}])


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPROCESS, _preprocess_request)
    surgery.wrap(_FRAMES, _extract_video_frames_smart)
    surgery.wrap(_SAVED, _save_frames_to_temp)
    surgery.wrap(_TEMPLATE, _apply_chat_template)
    surgery.wrap(_PREPARE, _prepare_inputs)


def _preprocess_request(original):
    def _preprocess_request(self, request):
        before = _of_gemma4.set(bool(request.videos) and models.is_gemma4(self.processor))
        try:
            return original(self, request)
        finally:
            _of_gemma4.reset(before)

    return _preprocess_request


def _extract_video_frames_smart(original):
    def extract_video_frames_smart(video_path, *args, **kwargs):
        if _of_gemma4.get():
            return _Film(video_path)
        return original(video_path, *args, **kwargs)

    return extract_video_frames_smart


def _save_frames_to_temp(original):
    def save_frames_to_temp(frames):
        return [frames] if isinstance(frames, _Film) else original(frames)

    return save_frames_to_temp


def _apply_chat_template(original):
    def _apply_chat_template(self, messages, *args, **kwargs):
        if self._is_mllm and is_gemma4(self):
            messages = [_with_known_types(message) for message in messages]
        return original(self, messages, *args, **kwargs)

    return _apply_chat_template


def _with_known_types(message: Any) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    known = [
        {**part, "type": "video"}
        if isinstance(part, dict) and part.get("type") == "video_url"
        else part
        for part in content
    ]
    return {**message, "content": known}


def _prepare_inputs(original):
    parameters = signature(original)

    def prepare_inputs(*args, **kwargs):
        call = parameters.bind(*args, **kwargs)
        images = call.arguments.get("images")
        given = images if isinstance(images, list) else []
        films = [image for image in given if isinstance(image, _Film)]
        if films:
            pictures = [image for image in given if not isinstance(image, _Film)]
            call.arguments |= {"images": pictures or None, "videos": films}
        return original(*call.args, **call.kwargs)

    return prepare_inputs


PATCH = Patch(
    id="vllm_mlx.video_ignored",
    targets=(_PREPROCESS, _FRAMES, _SAVED, f"{_TEMPLATE}(self, messages)"),
    apply=apply,
    probe=probe,
)
