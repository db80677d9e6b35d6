"""What the patches cost and save: stock and patched in turn, in one run.

One module for each thing that is measured: ``starting`` any process, ``mlx_lm``, ``mlx_vlm``;
``comparing`` is how.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from .. import activate
from . import mlx_lm, mlx_vlm, starting


def run(size: str) -> Iterator[dict[str, Any]]:
    """Measure everything that this installation has.

    Args:
        size: ``tiny`` runs on any CPU in about a minute; ``e2b`` needs a GPU with 30 GB.

    Returns:
        The rows of ``comparing.compare``, one a figure, as each is measured.

    Raises:
        RuntimeError: a host is installed, but the patches are switched off or failed to start.
    """
    yield from starting.start_up()
    activate()
    if importlib.util.find_spec("mlx_lm"):
        yield starting.import_host()
        yield from mlx_lm.run(size)
    if importlib.util.find_spec("mlx_vlm"):
        yield from mlx_vlm.run(size)
