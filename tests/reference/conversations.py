"""Conversations with media, for transformers (make_media.py) and for the hosts alike.

A part is a text or a ``Medium``. Sounds are noise at 16 kHz, pictures are noise too.
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mlx_gemma4_patches.gemma4 import tiny, tiny_audio

SAMPLES = {"short": 9_000, "long": 20_000, "odd": 16_001, "even": 16_000}
PICTURES = {"wide": (3, 5), "tall": (4, 3)}  # soft tokens down and across
SIZES = ((1, 1), (640, 480), (48, 48), (120, 1), (1, 120), (3000, 20), (333, 517), (7, 5))
LENGTHS = (1, 160, 161, 320, 640, 9000, 16000, 16001, 16100, 16161, 20000, 23456, 480_001)


class Medium(NamedTuple):
    kind: str  # audio or image
    name: str


SHORT, LONG, ODD = (Medium("audio", name) for name in ("short", "long", "odd"))
WIDE, TALL = Medium("image", "wide"), Medium("image", "tall")

CONVERSATIONS = {
    "sound": [("user", ["write down", LONG])],
    "sound_first": [("user", [LONG, "write down"])],
    "sound_between": [("user", ["what is", ODD, "this"])],
    "sound_before": [("user", ["hear", SHORT]), ("assistant", ["yes"]), ("user", ["and now"])],
    "sounds": [("user", ["hear two", SHORT, LONG])],
    "sounds_apart": [("user", [LONG, "then", SHORT, "compare"])],
    "sounds_turns": [("user", ["one", SHORT]), ("assistant", ["ok"]), ("user", [LONG, "two"])],
    "picture": [("user", [WIDE, "what is it"])],
    "picture_sound": [("user", [WIDE, "tell", SHORT])],
    "sound_picture": [("user", ["say", ODD, "see", TALL, "which"])],
    "all": [("user", [WIDE, "and", TALL, "or", SHORT, "and", LONG])],
}


def media(conversation: str, kind: str) -> list[str]:
    """The names of a conversation's media of one kind, in order."""
    return [
        part.name
        for _, parts in CONVERSATIONS[conversation]
        for part in parts
        if isinstance(part, Medium) and part.kind == kind
    ]


def pcm(name: str) -> np.ndarray:
    """int16 (samples,): what is in the file of a sound."""
    return (tiny_audio.sound(SAMPLES[name], seed=SAMPLES[name]) * 32768).astype(np.int16)


def picture(name: str) -> Image.Image:
    pixels = tiny.image(*PICTURES[name], seed=sum(PICTURES[name]))
    return Image.fromarray((pixels * 255).astype(np.uint8).transpose(1, 2, 0))


def write(medium: Medium, folder: Path) -> Path:
    """The file of a medium: .wav, 16 bits, or .png."""
    if medium.kind == "image":
        file = folder / f"{medium.name}.png"
        picture(medium.name).save(file)
        return file
    file = folder / f"{medium.name}.wav"
    write_sound(file, pcm(medium.name))
    return file


def write_sound(file: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    """int16 (samples,) or (samples, channels) as a .wav file."""
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())


def text(conversation: str) -> str:
    """The prompt of a conversation as tests.hosts.tokenizer.TEMPLATE renders it."""
    turns = "".join(
        f"<|turn>{'model' if role == 'assistant' else role}\n"
        + "".join(f"<|{part.kind}|>" if isinstance(part, Medium) else part for part in parts)
        + "<turn|>\n"
        for role, parts in CONVERSATIONS[conversation]
    )
    return f"<bos>{turns}<|turn>model\n"
