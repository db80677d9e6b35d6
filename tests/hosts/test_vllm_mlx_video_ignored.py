"""Gemma 4 sees the videos of requests, as it sees them in mlx-vlm."""

from __future__ import annotations

import base64
import importlib
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import batching
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("vllm_mlx")
cv2 = pytest.importorskip("cv2")
gemma4 = pytest.importorskip("mlx_vlm.models.gemma4.processing_gemma4")
if not hasattr(gemma4, "Gemma4VideoProcessor"):
    pytest.skip("this mlx-vlm takes no videos", allow_module_level=True)

ID = "vllm_mlx.video_ignored"


def film(file, seed: int) -> str:
    """A data URI of 4 frames, 2 a second."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 2.0, (96, 96))
    for i in range(4):
        pixels = tiny.image(2, 2, seed=100 * seed + i).transpose(1, 2, 0)
        writer.write((pixels * 255).astype(np.uint8))
    writer.release()
    return f"data:video/avi;base64,{base64.b64encode(file.read_bytes()).decode()}"


def asked(text: str, video: str) -> dict:
    part = {"type": "video_url", "video_url": {"url": video}}
    return {"role": "user", "content": [part, {"type": "text", "text": text}]}


class TestVideoIgnored(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path) -> None:
        self.folder = batching.save("dense", tmp_path / "gemma-4-tiny")

    def untouched(self):
        image = batching.image(0)
        with batching.engine(self.folder) as engine:
            return [
                engine.answer(batching.message("hello")).text,
                engine.answer(batching.message("hi", image)).text,
                engine.answer(batching.message("hi", image)).text,
                self._read_by_itself(),
            ]

    def _read_by_itself(self) -> str:
        """What comes of a text whose ids are there, with a generator that has nothing else."""
        from vllm_mlx.mllm_batch_generator import MLLMBatchGenerator, MLLMBatchRequest

        request = MLLMBatchRequest(uid=0, request_id="", prompt="hello")
        request.input_ids = mx.array([[1, 2, 3]])
        try:
            return str(MLLMBatchGenerator._preprocess_request(SimpleNamespace(), request))
        except AttributeError as error:  # older releases read it again
            return str(error)


def test_another_video_is_answered_otherwise(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny")
    films = [film(tmp_path / f"{seed}.avi", seed) for seed in (1, 2)]
    with patched(ID), batching.engine(folder) as engine:
        one, other = (engine.answer(asked("what happens", f), max_tokens=6).text for f in films)
    assert one != other


def test_an_image_beside_it_hides_no_other_video(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny")
    films = [film(tmp_path / f"{seed}.avi", seed) for seed in (1, 2)]
    image = {"type": "image_url", "image_url": {"url": batching.image(0)}}
    answers = []
    for chosen in ([films[0]], [films[1]], films):
        with patched(ID), batching.engine(folder) as engine:  # its cache is empty
            for video in chosen:
                message = asked("what happens", video)
                message["content"].insert(0, image)
                answers.append(engine.answer(message, max_tokens=6).text)
    alone, together = answers[:2], answers[2:]
    assert alone == together
    assert alone[0] != alone[1]


def test_it_is_seen_as_in_mlx_vlm(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny")
    video = film(tmp_path / "film.avi", 3)
    with patched(ID), batching.engine(folder) as engine:
        answer = engine.answer(asked("what happens", video), max_tokens=6)
    utils, generate = (importlib.import_module(f"mlx_vlm.{name}") for name in ("utils", "generate"))
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
    model, processor = utils.load(str(folder))
    file = str(tmp_path / "film.avi")
    prompt = prompt_utils.apply_chat_template(processor, model.config, "what happens", video=[file])
    how = {"video": [file], "max_tokens": answer.completion_tokens, "temperature": 0.0}
    parts = generate.stream_generate(model, processor, prompt, **how)
    assert answer.text == "".join(part.text for part in parts)
