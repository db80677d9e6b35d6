"""20 sounds, 20 pictures and 6 videos, alone and in pairs, for transformers and the hosts alike.

Pictures are smooth, so that what the two resizers of transformers make of them differs as little as
can be; videos have the size that Gemma 4 sees, so that nothing resizes them.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_gemma4_patches.gemma4 import tiny_audio
from tests.reference.conversations import Medium

_SAMPLES = (161, 320, 640, 800, 1601, 4000, 8000, 9000, 12_345, 16_000, 16_001, 16_161, 20_000)
_SAMPLES += (23_456, 31_999, 32_000, 40_000, 48_017, 64_000, 80_001)
_SIZES = ((1, 1), (7, 5), (48, 48), (64, 48), (11, 9), (9, 14), (200, 150), (96, 144), (333, 517))
_SIZES += ((640, 480), (480, 640), (800, 600), (1000, 700), (700, 1000), (960, 672), (768, 768))
_SIZES += ((1200, 800), (800, 1200), (500, 501), (255, 257))
_FRAMES = (32, 33, 40, 64, 75, 100)
SHAPE = (480, 336)  # width and height of a video: 70 soft tokens
RATE = 10.0  # frames a second

MEDIA = {
    "audio": [Medium("audio", f"sound{i}") for i in range(20)],
    "image": [Medium("image", f"picture{i}") for i in range(20)],
    "video": [Medium("video", f"video{i}") for i in range(6)],
}


def _conversations() -> dict[str, list]:
    sounds, pictures, videos = MEDIA.values()
    made = {m.name: [m, "what is it"] for m in (*sounds, *pictures, *videos)}
    pairs = [(sounds[i], pictures[i]) for i in range(20)]
    pairs += [(some[i], some[i + 1]) for some in (sounds, pictures) for i in range(0, 20, 2)]
    pairs += [(videos[i], sounds[i + 6]) for i in range(6)]
    pairs += [(pictures[i + 6], videos[i]) for i in range(6)]
    return made | {f"{a.name}_{b.name}": [a, "and", b, "compare"] for a, b in pairs}


CONVERSATIONS = _conversations()


def sound(name: str) -> np.ndarray:
    """int16 (samples,) at 16 kHz."""
    index = int(name.removeprefix("sound"))
    return (tiny_audio.sound(_SAMPLES[index], seed=100 + index) * 32768).astype(np.int16)


def picture(name: str) -> Image.Image:
    index = int(name.removeprefix("picture"))
    return Image.fromarray(_smooth(*_SIZES[index], phase=index))


def frames(name: str) -> np.ndarray:
    """uint8 (frames, height, width, 3)."""
    index = int(name.removeprefix("video"))
    count = _FRAMES[index]
    return np.stack([_smooth(*SHAPE, phase=index + 7 * i / count) for i in range(count)])


def write(folder: Path) -> None:
    """The files of all media: .wav, .png and .avi without loss."""
    import cv2

    for medium in MEDIA["audio"]:
        (folder / f"{medium.name}.wav").write_bytes(_wav(sound(medium.name)))
    for medium in MEDIA["image"]:
        picture(medium.name).save(folder / f"{medium.name}.png")
    for medium in MEDIA["video"]:
        file = str(folder / f"{medium.name}.avi")
        film = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"FFV1"), RATE, SHAPE)
        for frame in frames(medium.name):
            film.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        film.release()


def _wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def _smooth(width: int, height: int, phase: float) -> np.ndarray:
    """uint8 (height, width, 3): slow waves."""
    x = np.linspace(0, 5 + phase % 3, width)[None, :, None]
    y = np.linspace(0, 4 + phase % 2, height)[:, None, None]
    color = np.array([0.0, 2.0, 4.0])
    return (127 + 120 * np.sin(x + color + phase) * np.cos(y - color * phase)).astype(np.uint8)
