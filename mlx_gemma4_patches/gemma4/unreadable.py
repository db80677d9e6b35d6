"""Why a picture, a sound or a video cannot be read, in words that repeat nothing of it."""

from __future__ import annotations

import binascii
import contextlib
import errno
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import soft_tokens, video

MOST_SAMPLES = 100_000_000  # of all channels of a sound, 600 MB while it is read; 35 min at 48 kHz
MOST_PIXELS = 4096 * 4096  # of a frame of a video, 50 MB
FRAME_BYTES = 1_000_000_000  # of the frames of a video, twice that while it is read

_NAMES = {"image": "picture", "audio": "sound", "video": "video"}
_DAMAGED = "it is empty, damaged, cut off or in a format that is not known here"


class Refused(Exception):
    """A medium that is not taken; the message is the reason."""


def sentence(kind: str, number: int, count: int, error: BaseException) -> str:
    """What the user is told of the ``number``-th of ``count`` media of a kind."""
    which = f"the {_NAMES[kind]}" if count == 1 else f"{_NAMES[kind]} {number} of {count}"
    return f"{which} cannot be read: {_reason(error)}"


def _reason(error: BaseException) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Refused):
        return str(error)
    error = error.__cause__ or error
    if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return "there is no such file"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
    if isinstance(error, UnidentifiedImageError):
        return "it is empty, or in no format of pictures that is known here"
    if isinstance(error, binascii.Error):
        return "its data is not base64"
    return _DAMAGED


def check_size(sound: Any) -> None:
    """Look at a sound, a path or bytes, before it is decoded as a whole.

    Raises Refused: it has more than ``MOST_SAMPLES``. Or what reading the header raises.
    """
    if _samples(sound) > MOST_SAMPLES:
        raise Refused(
            f"it has more than {MOST_SAMPLES / 1e6:.0f} million samples, the most that are taken"
        )


def check_length(samples: int, shortest: int = soft_tokens.SHORTEST_SOUND) -> None:
    """Raises Refused: so many samples at 16 kHz are no soft token."""
    if samples < shortest:
        raise Refused(f"it has {samples} samples at 16 kHz, and {shortest} are the least")


def check_video(name: str) -> int:
    """The pixels of a frame of the video in the file of that name.

    Raises Refused or FileNotFoundError: there is no frame to read, or they are too large.
    """
    import cv2

    if "://" not in name and not Path(name).is_file():
        raise FileNotFoundError
    film = cv2.VideoCapture(name)
    try:
        pixels = int(film.get(cv2.CAP_PROP_FRAME_WIDTH) * film.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if pixels > MOST_PIXELS:
            raise Refused(
                f"its frames have {pixels / 1e6:.0f} million pixels, and {MOST_PIXELS / 1e6:.0f} "
                "million are the most that are taken"
            )
        if not film.isOpened() or not film.read()[0]:
            raise Refused(_DAMAGED)
    finally:
        film.release()
    return pixels


def frames_in_memory(pixels: int) -> int:
    """How many frames of a video are read at most, before those for the model are chosen."""
    # even, as the hosts take frames two by two
    return max(video.FRAMES, FRAME_BYTES // (3 * max(pixels, 1)) // 2 * 2)


def _samples(sound: str | Path | io.BytesIO) -> int:
    """How many numbers a sound has; counting ends behind ``MOST_SAMPLES``.

    What is compressed is decoded for it, a piece at a time: its header may say anything.
    """
    import miniaudio

    if isinstance(sound, io.BytesIO):
        in_file, sound = "", sound.getvalue()
        head = sound[:8]
    else:
        in_file, sound = "_file", str(sound)
        with open(sound, "rb") as file:
            head = file.read(8)
    if head[:4] == b"RIFF":
        info = getattr(miniaudio, f"wav_get{in_file}_info")(sound)
        return info.num_frames * info.nchannels
    for form in ("flac", "mp3") if not _is_for_ffmpeg(head) else ():
        with contextlib.suppress(miniaudio.DecodeError):
            info = getattr(miniaudio, f"{form}_get{in_file}_info")(sound)
            decode = miniaudio.stream_file if in_file else miniaudio.stream_memory
            how = {"nchannels": info.nchannels, "sample_rate": info.sample_rate}
            return _count(map(len, decode(sound, frames_to_read=1 << 16, **how)))
    return _counted_by_ffmpeg(sound)


def _is_for_ffmpeg(head: bytes) -> bool:
    """Whether a sound begins as MP4, Ogg, WebM, CAF, AIFF or AAC do."""
    if head[4:8] == b"ftyp" or head[:4] in (b"OggS", b"\x1a\x45\xdf\xa3", b"caff", b"FORM"):
        return True
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _counted_by_ffmpeg(sound: str | bytes) -> int:
    """0 where there is no ffmpeg, without which the hosts read no such sound."""
    program = shutil.which("ffmpeg")
    if program is None:
        return 0
    with contextlib.ExitStack() as stack:
        if isinstance(sound, bytes):  # it must be able to go back in it
            file = stack.enter_context(tempfile.NamedTemporaryFile())
            file.write(sound)
            file.flush()
            sound = file.name
        process = stack.enter_context(
            subprocess.Popen(
                [program, "-v", "quiet", "-i", sound, "-f", "s16le", "-"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(process.kill)
        blocks = iter(lambda: process.stdout.read(1 << 20), b"")
        return _count(len(block) // 2 for block in blocks)


def _count(parts: Iterable[int]) -> int:
    count = 0
    for part in parts:
        count += part
        if count > MOST_SAMPLES:
            break
    return count
