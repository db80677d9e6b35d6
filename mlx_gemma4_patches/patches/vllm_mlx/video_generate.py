"""Without continuous batching every request with a video fails: "No module named ...".

What the user sees: 500 for a video that the server with ``--continuous-batching`` takes; with
mlx-vlm before 0.6.4, an answer that has nothing to do with the video.

Why: videos go to ``mlx_vlm.video_generate``, which was for Qwen's models and is gone since
mlx-vlm 0.6.4. What it hands over as images Gemma 4 takes for none.

The fix: for Gemma 4 they go to mlx-vlm's ``generate``, which knows them since 0.5. It can be
deleted when ``_generate_native_video`` calls that.
"""

from __future__ import annotations

import contextlib
import importlib.util
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ...gemma4 import parts
from ...hosts.vllm_mlx import unbatched, video
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_NATIVE = "vllm_mlx.models.mllm:MLXMultimodalLM._generate_native_video"


def probe() -> Finding:
    video.skip_unless_taken()
    given: list[str] = []

    def generate(*_: Any, **how: Any) -> Any:
        given.extend(how.get("video") or [])
        return "seen"

    part = {"type": "video_url", "video_url": {"url": video.film()}}
    with unbatched.model(generate) as made, _in_its_old_place(generate):
        made.processor = _Processor(**vars(made.processor))
        try:
            made._generate_native_video([{"role": "user", "content": [part]}])
        except Exception as error:
            return Finding(True, f"a video ends in {type(error).__name__}: {error}")
    return Finding(len(given) != 1, f"of 1 video mlx-vlm is given {len(given)}")


class _Processor(SimpleNamespace):
    def __call__(self, **_: Any) -> dict[str, Any]:
        return {"input_ids": [[0]], "attention_mask": [[1]], "pixel_values_videos": [0.0]}


def _in_its_old_place(generate: Any) -> contextlib.AbstractContextManager[Any]:
    if importlib.util.find_spec("mlx_vlm.video_generate") is None:
        return contextlib.nullcontext()
    return mock.patch("mlx_vlm.video_generate.generate", generate)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_NATIVE, _generate_native_video)


def _generate_native_video(original):
    def _generate_native_video(
        self,
        messages,
        max_tokens=256,
        temperature=0.7,
        video_fps=2.0,
        video_max_frames=128,
        tools=None,
        **kwargs,
    ):
        if not is_gemma4(self):
            tooling = {} if tools is None else {"tools": tools}  # the first releases know none
            how = (max_tokens, temperature, video_fps, video_max_frames)
            return original(self, messages, *how, **tooling, **kwargs)
        import mlx_vlm
        from mlx_vlm.prompt_utils import get_chat_template
        from vllm_mlx.models.mllm import MLLMOutput

        turns = self._translate_messages_for_native_video(messages, video_fps, video_max_frames)
        result = mlx_vlm.generate(
            self.model,
            self.processor,
            get_chat_template(self.processor, turns, True, **({"tools": tools} if tools else {})),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=kwargs.get("top_p", 1.0),
            verbose=False,
            **{kind: _files(turns, kind) or None for kind in parts.KINDS},
        )
        made = getattr(result, "generation_tokens", 0)
        return MLLMOutput(
            text=getattr(result, "text", result),
            finish_reason="length" if made >= max_tokens else "stop",
            prompt_tokens=getattr(result, "prompt_tokens", 0),
            completion_tokens=made,
        )

    return _generate_native_video


def _files(turns: list[dict[str, Any]], kind: str) -> list[str]:
    """The media of one kind, as many as the template makes placeholders."""
    contents = [turn["content"] for turn in turns if isinstance(turn["content"], list)]
    return [part[kind] for content in contents for part in content if part["type"] == kind]


PATCH = Patch(id="vllm_mlx.video_generate", targets=(_NATIVE,), apply=apply, probe=probe)
