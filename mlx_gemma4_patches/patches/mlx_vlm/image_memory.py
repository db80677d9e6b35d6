"""A picture of a few kilobytes takes gigabytes.

What the user sees: a server that is killed for its memory, or swaps, because of one picture: a PNG
of 20 kB and 169 million pixels takes 2 GB.

Why: Gemma 4 sees at most 2.6 million pixels of a picture, and makes arrays of all of them first.

The fix: for Gemma 4 a picture of more than 64 million pixels is made smaller, by a whole factor and
still four times as large as what is seen, before it becomes an array. Pillow refuses 179 million
pixels, which with its 4 bytes of each is the bound: 0.7 GB. Pictures that the host fetches itself
are as before. It can be deleted when the processor resizes before it converts.
"""

from __future__ import annotations

import base64
import io
import math
from inspect import signature
from pathlib import Path
from typing import Any

from ...hosts.mlx_vlm import models
from ...patch import Finding, Patch
from ...surgery import Surgery

_PREPARE = "mlx_vlm.utils:prepare_inputs"
_MOST = 64_000_000  # pixels that become an array
_KEPT = 10_400_000  # pixels of those that have more; 4 * 1120 soft tokens * 48 * 48


def probe() -> Finding:
    from mlx_vlm import utils
    from mlx_vlm.models.gemma4.processing_gemma4 import Gemma4Processor
    from PIL import Image

    seen = []

    class Processor(Gemma4Processor):
        """Takes down how large a picture it is given."""

        __module__ = Gemma4Processor.__module__

        def __init__(self):
            pass

        def __call__(self, text=None, images=None, **how):
            seen.extend(image.width * image.height for image in images)
            return {"input_ids": [[0]], "attention_mask": [[1]]}

    file = io.BytesIO()
    Image.new("1", (8_001, 8_000)).save(file, "PNG")
    utils.prepare_inputs(Processor(), images=[Image.open(file)], prompts="<|image|>")
    is_large = max(seen) > _MOST
    return Finding(is_large, f"of 64 million pixels {max(seen) / 1e6:.0f} million become an array")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPARE, _bounded)


def _bounded(original):
    parameters = signature(original)

    def prepare_inputs(processor, *args, **kwargs):
        if not models.is_gemma4(processor):
            return original(processor, *args, **kwargs)
        given = parameters.bind(processor, *args, **kwargs)
        images = given.arguments.get("images")
        if isinstance(images, list):
            given.arguments["images"] = [_smaller(image) for image in images]
        elif images is not None:
            given.arguments["images"] = _smaller(images)
        return original(*given.args, **given.kwargs)

    return prepare_inputs


def _smaller(source: Any) -> Any:
    """A picture that is not too large, or ``source`` itself where it is none or unreadable."""
    from PIL import ImageOps

    try:
        image = _opened(source)
        if image is None or image.width * image.height <= _MOST:
            return source
        factor = math.isqrt(image.width * image.height // _KEPT)
        if image.mode in ("1", "P"):  # which have no pixels between theirs
            image = image.convert("L" if image.mode == "1" else "RGB")
        small = image.reduce(factor)
        return ImageOps.exif_transpose(small)
    except Exception:
        return source  # whoever reads it says why


def _opened(source: Any) -> Any:
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, str) and source.startswith("data:image/"):
        source = io.BytesIO(base64.b64decode(source.partition(",")[2]))
    elif isinstance(source, io.BytesIO):
        source = io.BytesIO(source.getvalue())
    elif not isinstance(source, (str, Path)) or str(source).startswith(("http://", "https://")):
        return None
    return Image.open(source)


PATCH = Patch(
    id="mlx_vlm.image_memory",
    targets=(f"{_PREPARE}(processor, *, images, audio, prompts)",),
    apply=apply,
    probe=probe,
)
