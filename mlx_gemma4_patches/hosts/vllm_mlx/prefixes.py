"""A prompt that Gemma 4 reads, watched at the model, so that it does not matter who calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ...gemma4.prefix_cuts import cuts
from ...surgery import Surgery

_MODEL = "mlx_vlm.models.gemma4.language:LanguageModel.__call__"
_here = threading.local()

Keep = Callable[[list[int], list[Any], list[int]], None]  # ids, caches, lengths


class _Reading:
    def __init__(self, ids: list[int], at: int, keep: Keep):
        self._ids = ids
        self._at = at
        self._cuts = cuts(ids)
        self._keep = keep

    def step(self, inputs: Any, caches: Any) -> None:
        if inputs is None or not caches or inputs.shape[0] != 1:
            return
        now = getattr(caches[0], "offset", None)
        if not isinstance(now, int) or now - inputs.shape[1] != self._at:
            return
        if inputs[0].tolist() != self._ids[self._at : now]:
            return
        if parts := [cut for cut in self._cuts if self._at < cut <= now]:
            self._keep(self._ids, caches, parts)
        self._at = now
        if now == len(self._ids):
            _here.reading = None


def reads(ids: list[int], at: int, keep: Keep) -> None:
    """The model reads ``ids`` from ``at`` on next, in this thread and with caches of one text.

    ``keep`` is called after each of its steps with what is worth while to keep of it.
    """
    _here.reading = _Reading(ids, at, keep)


def watch(surgery: Surgery) -> None:
    """Watch the model; it goes on as it is."""
    surgery.wrap(_MODEL, _watched)


def _watched(original):
    def __call__(self, inputs=None, *args, **kwargs):
        made = original(self, inputs, *args, **kwargs)
        if (reading := getattr(_here, "reading", None)) is not None:
            reading.step(inputs, kwargs.get("cache"))
        return made

    return __call__
