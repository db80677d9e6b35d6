"""A video as requests bring it to this host."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from ...patch import NotApplicable


def film() -> str:
    """The data URI of a film of 8 black frames."""
    import cv2
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "film.avi"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 4.0, (64, 48))
        for _ in range(8):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.release()
        return f"data:video/avi;base64,{base64.b64encode(file.read_bytes()).decode()}"


def skip_unless_taken() -> None:
    """Raise NotApplicable where no video of a request can reach a Gemma 4."""
    from mlx_vlm.models.gemma4 import processing_gemma4
    from vllm_mlx.models.mllm import process_video_input

    if not hasattr(processing_gemma4, "Gemma4VideoProcessor"):
        raise NotApplicable("this mlx-vlm takes no videos")
    try:
        process_video_input(film())
    except OSError:
        raise NotApplicable("this vllm-mlx takes no videos as data URIs") from None
