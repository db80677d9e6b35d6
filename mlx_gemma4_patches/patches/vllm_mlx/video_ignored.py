"""With continuous batching Gemma 4 never sees a video.

What the user sees: after a long wait an answer that has nothing to do with the video; it is the
same without one.

Why: the frames are prepared as images. The prompt has a marker of a video and none of images, so
that what the vision tower makes of the frames is thrown away.

The fix: for Gemma 4 the video itself is handed to mlx-vlm's processor, which knows the marker. It
can be deleted when vllm-mlx passes ``videos`` to ``prepare_inputs``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ...hosts.mlx_vlm import models
from ...hosts.vllm_mlx import video
from ...patch import Finding, Patch
from ...surgery import Surgery

_PREPROCESS = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator._preprocess_request"


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
    return Finding(len(given) != 1, f"of 1 video the processor is given {len(given)}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPROCESS, _preprocess_request)


def _preprocess_request(original):
    def _preprocess_request(self, request):
        if not request.videos or not models.is_gemma4(self.processor):
            return original(self, request)
        inputs = dict(_inputs(self.processor, request))
        request.is_text_only = False
        for name in ("input_ids", "pixel_values", "attention_mask"):
            setattr(request, name, inputs.pop(name, None))
        request.extra_kwargs = inputs

    return _preprocess_request


def _inputs(processor: Any, request: Any) -> dict[str, Any]:
    """What mlx-vlm makes of a request and all of its media."""
    from mlx_vlm.utils import prepare_inputs
    from vllm_mlx.models import mllm

    def files(kind: str) -> list[str] | None:
        given = getattr(request, {"image": "images", "video": "videos"}.get(kind, kind), None)
        if not given:
            return None
        local = getattr(mllm, f"process_{kind}_input")
        return [local(medium) for medium in given]

    return prepare_inputs(
        processor,
        images=files("image"),
        audio=files("audio"),
        videos=files("video"),
        prompts=request.prompt,
    )


PATCH = Patch(id="vllm_mlx.video_ignored", targets=(_PREPROCESS,), apply=apply, probe=probe)
