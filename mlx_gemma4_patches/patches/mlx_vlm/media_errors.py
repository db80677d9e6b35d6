"""A picture, sound or video that cannot be read is a 500 that repeats all of it.

What the user sees: for a damaged picture of 3 MB a server error of 4 MB, with the request's data
in it, and 8 MB in the log; from Python an error that names a library's function. A sound of ten
hours takes gigabytes before 30 s of it are heard, and so does a video of six minutes before 0.7.1.

Why: media are read where any error is the server's, and the errors hold what could not be read.

The fix: for Gemma 4 what cannot be read is refused as a prompt that is too long is: 400, with one
sentence. A sound of more than 100 million numbers, 600 MB, is refused before it is decoded, also
one that has to be fetched, and so is a video whose frames have more than 17 million pixels. Where
the host reads 768 frames to choose 32, it reads no more than fit into 1 GB. It can be deleted when
the host's errors about media are the client's and what it takes is bounded.

The servers of 0.4 and 0.5 have no way to refuse: there the sentence comes with a 500.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from contextvars import ContextVar
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from ...gemma4 import soft_tokens, unreadable
from ...hosts.mlx_vlm import models
from ...patch import Finding, Patch
from ...surgery import Surgery

_PREPARE = "mlx_vlm.utils:prepare_inputs"
_IMAGE = "mlx_vlm.utils:load_image"
_AUDIO = "mlx_vlm.utils:load_audio"
_VIDEO = "mlx_vlm.utils:load_video"
_SERVER = "mlx_vlm.server.generation"
_PATIENCE = 10  # seconds without a byte, as in the host
_MOST_BYTES = 4 * unreadable.MOST_SAMPLES  # of a sound that is fetched
_KINDS = {"images": "image", "audio": "audio", "videos": "video"}


class _Reading(NamedTuple):
    """The media of a prompt for Gemma 4: how many there are, how many of them are read."""

    total: Counter[str]
    begun: Counter[str]
    shortest: int  # samples of a sound


_reading: ContextVar[_Reading | None] = ContextVar("media that are read", default=None)


def probe() -> Finding:
    from mlx_vlm import utils
    from mlx_vlm.models.gemma4.processing_gemma4 import Gemma4Processor

    secret = "c2VjcmV0"
    try:
        utils.prepare_inputs(
            Gemma4Processor.__new__(Gemma4Processor),
            images=[f"data:image/png;base64,{secret}"],
            prompts="<|image|>",
        )
    except Exception as error:
        is_told = secret not in str(error) and "cannot be read" in str(error)
        how = "one sentence" if is_told else f"{type(error).__name__}, whose text is the library's"
        return Finding(not is_told, f"a picture of 6 bytes ends in {how}")
    return Finding(True, "a picture of 6 bytes is taken")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPARE, _counting)
    for target, kind in ((_IMAGE, "image"), (_AUDIO, "audio"), (_VIDEO, "video")):
        if target in surgery.targets:
            surgery.wrap(target, _telling(kind))


def _counting(original):
    parameters = signature(original)

    def prepare_inputs(processor, *args, **kwargs):
        if not models.is_gemma4(processor):
            return original(processor, *args, **kwargs)
        given = parameters.bind(processor, *args, **kwargs).arguments
        total = Counter({kind: _number(given.get(name)) for name, kind in _KINDS.items()})
        shortest = 1 if models.is_unified(processor) else soft_tokens.SHORTEST_SOUND
        before = _reading.set(_Reading(total, Counter(), shortest))
        try:
            return original(processor, *args, **kwargs)
        finally:
            _reading.reset(before)

    return prepare_inputs


def _number(media: Any) -> int:
    return len(media) if isinstance(media, (list, tuple)) else 1


def _telling(kind: str):
    def make(original):
        most = signature(original).parameters.get("max_frames")  # in older releases

        def load(*args, **kwargs):
            reading = _reading.get()
            source = next(iter((*args, *kwargs.values())), None)
            if reading is None or not isinstance(source, (str, Path, io.BytesIO)):
                return original(*args, **kwargs)
            reading.begun[kind] += 1
            try:
                if kind == "audio" and str(source).startswith(("http://", "https://")):
                    source = _fetched(str(source))
                    kwargs.pop("file", None)
                    args = (source, *args[1:])
                if kind == "video":
                    frames = unreadable.frames_in_memory(_look_at_video(source))
                    if most is not None:
                        kwargs.setdefault("max_frames", min(frames, most.default))
                elif kind == "audio":
                    unreadable.check_size(source)
                medium = original(*args, **kwargs)
                if kind == "audio":
                    unreadable.check_length(medium.shape[0], reading.shortest)
                return medium
            except Exception as error:
                total = max(reading.total[kind], reading.begun[kind])
                text = unreadable.sentence(kind, reading.begun[kind], total, error)
                raise _refusal(text) from None

        return load

    return make


def _look_at_video(source: Any) -> int:
    """The pixels of a frame."""
    name = str(source).removeprefix("file://")
    if name.startswith("data:"):
        raise unreadable.Refused("a video is taken from a file, not from a data URI")
    return unreadable.check_video(name)


def _fetched(url: str) -> io.BytesIO:
    """A sound from its address, which the host would decode as soon as it has it."""
    import requests

    data = io.BytesIO()
    try:
        with requests.get(url, stream=True, timeout=_PATIENCE) as response:
            response.raise_for_status()
            for block in response.iter_content(1 << 20):
                data.write(block)
                if data.tell() > _MOST_BYTES:
                    raise unreadable.Refused(f"it has more than {_MOST_BYTES / 1e6:.0f} MB")
    except requests.RequestException:
        raise unreadable.Refused("it cannot be fetched from its address") from None
    data.seek(0)
    return data


def _refusal(text: str) -> ValueError:
    """What the server answers with 400, wherever it happens; elsewhere a ValueError."""
    of_server = getattr(sys.modules.get(_SERVER), "PromptTooLongError", None)
    if of_server is None:
        return ValueError(text)
    from fastapi import HTTPException

    class UnreadableMedia(of_server, HTTPException):
        def __init__(self):
            HTTPException.__init__(self, 400, text)

        def __str__(self):
            return text

    return UnreadableMedia()


PATCH = Patch(
    id="mlx_vlm.media_errors",
    targets=(
        f"{_PREPARE}(processor, *, images, audio, prompts)",
        f"{_IMAGE}(image_source)",
        f"{_AUDIO}(file, sr)",
        f"{_VIDEO}(video_path)",
    ),
    apply=apply,
    probe=probe,
)
