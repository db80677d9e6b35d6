"""What a fresh run says to prompts with pictures and sounds, by the model of mlx-vlm."""

from __future__ import annotations

import base64
import importlib
import io
import zlib
from pathlib import Path
from typing import Any

import mlx.core as mx
from PIL import Image

from mlx_gemma4_patches.gemma4.embedded import runs
from tests.hosts import fresh

Media = list[tuple[str, str]]  # image or audio, and its file in base64


def media(messages: list[dict[str, Any]]) -> Media:
    """The pictures and sounds of messages, in order."""
    found: Media = []
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part["type"] == "image_url":
                found.append(("image", part["image_url"]["url"].partition(",")[2]))
            elif part["type"] == "input_audio":
                found.append(("audio", part["input_audio"]["data"]))
    return found


class Prompt:
    """A prompt with media.

    Args:
        ids: its tokens, each soft token with a number of its medium in place of the placeholder.
        inputs: what mlx-vlm's model takes.
    """

    def __init__(self, ids: list[int], inputs: dict[str, Any]):
        self.ids = ids
        self.inputs = inputs


class Reference:
    """mlx-vlm's model of a checkpoint, which reads each prompt as a whole and without a cache."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._utils = importlib.import_module("mlx_vlm.utils")
        self._model, self._processor = self._utils.load(str(folder))

    def prompt(self, text: str, shown: Media) -> Prompt:
        files: dict[str, list[Any]] = {"image": [], "audio": []}
        for kind, data in shown:
            files[kind].append(self._read(kind, base64.b64decode(data)))
        inputs = self._utils.prepare_inputs(
            self._processor,
            images=files["image"] or None,
            audio=files["audio"] or None,
            prompts=text,
        )
        inputs = {name: value for name, value in inputs.items() if value is not None}
        row = mx.array(inputs["input_ids"])[0]
        ids = row.tolist()
        for kind in files:
            places = runs(row, getattr(self._model.config, f"{kind}_token_id"))
            each = [data for other, data in shown if other == kind]
            for (begin, end), data in zip(places, each, strict=True):
                ids[begin:end] = [-zlib.crc32(data.encode())] * (end - begin)
        return Prompt(ids, inputs)

    def says(self, prompt: Prompt, script: list[int]) -> list[tuple[int, float]]:
        """What the model says in place of the script: [(id, logit), ...]."""
        inputs = {k: v for k, v in prompt.inputs.items() if k != "attention_mask"}
        ids = mx.array(inputs.pop("input_ids"))
        length = ids.shape[1]
        ids = mx.concatenate([ids, mx.array([script[:-1]], ids.dtype)], axis=1)
        made = self._model(ids, inputs.pop("pixel_values", None), **inputs)
        return fresh.best(made.logits[0, length - 1 :])

    def _read(self, kind: str, data: bytes) -> Any:
        if kind == "image":
            return Image.open(io.BytesIO(data))
        file = self._folder / f"{zlib.crc32(data)}.wav"
        file.write_bytes(data)
        return str(file)
