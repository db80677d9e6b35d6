"""What is traced: tiny checkpoints, the prompts they are given, and ways of reading them.

Every way of reading a text has the same reference: however a prompt gets into the model, each
tensor is what it is when the prompt is read at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..gemma4 import tiny

FOLDER = Path(__file__).parent  # of the stored references
SAMPLES = 512  # values that are stored of each tensor
CHUNK = 7  # tokens of a step of chunked prefill
PROMPT, SAID, QUESTION = 40, 4, 12  # tokens of the text: a turn, its answer, the next turn
LENGTH = PROMPT + SAID + QUESTION
IMAGE = (6, 4)  # soft tokens down and across, more than the window has
FRAMES = 100  # of sound, 10 ms each
DRAFTS = 2  # of an assistant's first block

_TEXT = ("text", "chunked", "batched", "cached")
WAYS = {  # of each host
    "mlx_lm": (*_TEXT, "image", "drafts"),
    "mlx_vlm": (*_TEXT, "image", "sound"),
}
_SHAPES = {  # elsewhere those of tiny
    "sound": ("e2b",),
    "image": (*tiny.SHAPES, "12b"),
    "drafts": ("e2b", "dense"),  # the assistant of 26B-A4B has no experts
}


class Case(NamedTuple):
    """One shape of ``gemma4.tiny``, or 12b, which has the text of dense, read in one way."""

    shape: str
    way: str

    @property
    def reference(self) -> str:
        """The name that its numbers have in the shape's file."""
        return "text" if self.way in _TEXT else self.way


def of_host(host: str) -> list[Case]:
    """Every case that a host has."""
    return [Case(shape, way) for way in WAYS[host] for shape in _SHAPES.get(way, tiny.SHAPES)]


def frames() -> np.ndarray:
    """float32 (1, FRAMES, 128): log-mel energies, noise."""
    return (tiny.unit("mel", (1, FRAMES, 128)) * 4 - 2).astype(np.float32)


def sampled(positions: int, width: int) -> np.ndarray:
    """Which values of a (positions, width) tensor are stored: flat indices.

    Some of every position, and all of the last, which is the only one that some hosts compute.
    """
    total = positions * width
    spread = np.linspace(0, total - 1, min(SAMPLES, total)).astype(np.int64)
    return np.union1d(spread, np.arange(total - width, total))
