"""Why a picture, a sound or a video cannot be read, in words that repeat nothing of it."""

from __future__ import annotations

import binascii
import errno
import io
from pathlib import Path
from typing import Any

from . import soft_tokens

MOST_SAMPLES = 100_000_000  # of all channels of a sound, 600 MB while it is read; 35 min at 48 kHz

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
    """Look at the header of a sound, a path or bytes, before it is decoded.

    Raises Refused: it has more than ``MOST_SAMPLES``. Or what reading the header raises.
    """
    count = _samples(sound)
    if count > MOST_SAMPLES:
        raise Refused(
            f"it has {count / 1e6:.0f} million samples, and at most {MOST_SAMPLES / 1e6:.0f} "
            "million are taken"
        )


def check_length(samples: int, shortest: int = soft_tokens.SHORTEST_SOUND) -> None:
    """Raises Refused: so many samples at 16 kHz are no soft token."""
    if samples < shortest:
        raise Refused(f"it has {samples} samples at 16 kHz, and {shortest} are the least")


def check_video(name: str) -> None:
    """Raises Refused or FileNotFoundError: there is no frame to read in the file of that name."""
    import cv2

    if "://" not in name and not Path(name).is_file():
        raise FileNotFoundError
    film = cv2.VideoCapture(name)
    try:
        if not film.isOpened() or not film.read()[0]:
            raise Refused(_DAMAGED)
    finally:
        film.release()


def _samples(source: Any) -> int:
    """How many numbers a sound has by its header; 0 where it has none that is known."""
    import miniaudio

    if not isinstance(source, io.BytesIO):
        if Path(source).suffix.lower() not in (".wav", ".mp3", ".flac"):
            return 0
        info = miniaudio.get_file_info(str(source))
        return info.num_frames * info.nchannels
    data = source.getvalue()
    if data[:4] == b"RIFF":
        info = miniaudio.wav_get_info(data)
    elif data[:4] == b"fLaC":
        info = miniaudio.flac_get_info(data)
    elif data[:3] == b"ID3" or data[:1] == b"\xff":
        info = miniaudio.mp3_get_info(data)
    else:
        return 0
    return info.num_frames * info.nchannels
