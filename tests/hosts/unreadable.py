"""Files that are no pictures, sounds or videos, in every way that users meet."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import io
import struct
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_gemma4_patches.gemma4 import tiny_audio


def png(width: int = 60, height: int = 40, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    noise = tiny_audio.sound(width * height * 3) + 0.5
    pixels = (noise * 255).astype(np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def blank(width: int, height: int) -> bytes:
    """A PNG of so many black pixels, in few bytes."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def wav(samples: int, claimed: int | None = None) -> bytes:
    """A sound of so many samples at 16 kHz, whose header may claim more."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes((tiny_audio.sound(samples) * 32768).astype("<i2").tobytes())
    data = file.getvalue()
    if claimed is None:
        return data
    size = 2 * claimed
    return data[:4] + (size + 36).to_bytes(4, "little") + data[8:40] + size.to_bytes(4, "little")


def flac(samples: int) -> bytes:
    """Silence at 16 kHz, whose header does not say how long it is."""
    block = 65_535  # samples
    header = struct.pack(">HH6xQ16x", block, block, 16_000 << 44 | 15 << 36)
    frames = []
    for number in range(-(-samples // block)):
        start = b"\xff\xf8\x75\x08" + chr(number).encode() + struct.pack(">H", block - 1)
        frame = start + bytes([_remainder(start, 8, 0x07)]) + b"\0\0\0"
        frames.append(frame + struct.pack(">H", _remainder(frame, 16, 0x8005)))
    return b"fLaC\x80\0\0" + bytes([len(header)]) + header + b"".join(frames)


def _remainder(data: bytes, bits: int, polynomial: int) -> int:
    """The checksum of a FLAC."""
    top, rest = 1 << bits - 1, 0
    for byte in data:
        rest ^= byte << bits - 8
        for _ in range(8):
            rest = (rest << 1 ^ polynomial if rest & top else rest << 1) & (2 * top - 1)
    return rest


@contextlib.contextmanager
def at_an_address(folder: Path) -> Iterator[str]:
    """Where the files of a folder can be fetched until the end of the block."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


PICTURES = {
    "0 bytes": b"",
    "noise": bytes(range(1, 256)),
    "cut off": png()[:4000],
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>',
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(200),
    "a sound": wav(400),
    "256 million pixels": blank(16_000, 16_000),
}
SOUNDS = {
    "0 bytes": b"",
    "noise": bytes(range(1, 256)),
    "cut off": wav(400)[:30],
    "no sample": wav(0),
    "1 sample": wav(1),
    "a picture": png(),
    "10 hours": wav(16_000, claimed=10 * 3600 * 16_000),
    "2 hours of silence": flac(2 * 3600 * 16_000),
}
VIDEOS = {"0 bytes": b"", "noise": bytes(range(1, 256)), "a picture cut off": png()[:100]}
