"""mlx-vlm with a tiny E2B that hears and sees, asked what transformers was asked."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from packaging.version import Version

from mlx_gemma4_patches.gemma4 import tiny, tiny_audio
from tests.hosts import tokenizer
from tests.hosts.parity import REFERENCE
from tests.reference import conversations
from tests.reference.conversations import CONVERSATIONS, Medium


def reference() -> dict[str, mx.array]:
    """transformers' numbers, as tests/reference/make_media.py describes them."""
    return mx.load(str(REFERENCE / "media.safetensors"))


def save(folder: Path) -> Path:
    """A checkpoint with tokenizer, template and the files of all media."""
    tokenizer.save(folder)
    tiny_audio.add_to(tiny.save("e2b", folder))
    for kind, names in (
        ("audio", conversations.SAMPLES),
        ("image", conversations.PICTURES),
    ):
        for name in names:
            conversations.write(Medium(kind, name), folder)
    return folder


class Hearing:
    def __init__(self, folder: Path):
        self.folder = save(folder)
        self.model, self.processor = importlib.import_module("mlx_vlm.utils").load(str(folder))

    def files(self, conversation: str) -> dict[str, list[str] | None]:
        """The arguments of ``generate`` that bring a conversation's media."""
        return {
            kind: [str(self.folder / f"{n}.{end}") for n in conversations.media(conversation, kind)]
            or None
            for kind, end in (("audio", "wav"), ("image", "png"))
        }

    def ids(self, conversation: str, text: str | None = None) -> list[int]:
        """The token ids of a conversation, of ``text`` where it is given."""
        utils = importlib.import_module("mlx_vlm.utils")
        files = self.files(conversation)
        made = utils.prepare_inputs(
            self.processor,
            images=files["image"],
            audio=files["audio"],
            prompts=text or conversations.text(conversation),
        )
        return made["input_ids"][0].tolist()

    def greedy(self, conversation: str, text: str | None = None, **how: Any) -> list[int]:
        """What is said to a conversation, up to as many tokens as transformers' reference has."""
        generate = importlib.import_module("mlx_vlm.generate")
        count = reference()[f"greedy_{conversation}"].size
        how = {**self.files(conversation), "temperature": 0.0, "max_tokens": count, **how}
        text = text or conversations.text(conversation)
        parts = generate.stream_generate(self.model, self.processor, text, **how)
        return [int(part.token) for part in parts][:count]


def messages(conversation: str) -> list[dict[str, Any]]:
    """A conversation as a request has it, its media without their sources."""
    return [
        {
            "role": role,
            "content": [
                {"type": part.kind} if isinstance(part, Medium) else {"type": "text", "text": part}
                for part in parts
            ],
        }
        for role, parts in CONVERSATIONS[conversation]
    ]


def skip_unless_sounds_are_heard() -> None:
    """Skip on mlx-vlm 0.4, whose sounds become another spectrogram."""
    if Version(version("mlx-vlm")) < Version("0.5"):
        pytest.skip("mlx-vlm 0.4 hears sounds through another spectrogram")
