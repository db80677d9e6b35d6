"""What the patches cost and save: stock and patched in turn, in one run.

One module for each thing that is measured: ``starting`` any process, ``generation`` of whole
answers, ``overhead`` of the wrappers alone, ``mlx_lm`` and ``mlx_vlm`` what single patches change,
``drafting`` what an assistant does; ``comparing`` is how.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import activate
from . import drafting, generation, mlx_lm, mlx_vlm, overhead, starting

REQUESTS = (1, 8)


def run(
    size: str,
    say: Callable[[str], None],
    model: str | None = None,
    bits: int | None = None,
    requests: Sequence[int] = REQUESTS,
) -> Iterator[dict[str, Any]]:
    """Measure everything that this installation has.

    Args:
        size: ``tiny`` runs on any CPU, everything else with it; of the sizes of ``gemma4.sizes``
            generation alone is measured, with random weights.
        say: called with what is measured next.
        model: the folder of a checkpoint, for generation alone.
        bits: quantize random weights to so many.
        requests: how many at once.

    Returns:
        The rows of ``comparing.row``, one a figure, as each is measured; a row with ``error``
        instead of figures where a process failed.

    Raises:
        RuntimeError: a host is installed, but the patches are switched off or failed to start.
    """
    has_mlx_lm, has_mlx_vlm = (importlib.util.find_spec(h) for h in ("mlx_lm", "mlx_vlm"))
    if size == "tiny" and not model:
        say("start-up")
        yield from starting.start_up()
        activate()
        if has_mlx_lm:
            yield starting.import_host()
            say("host overhead")
            yield from overhead.run()
            say("what single patches change")
            yield from mlx_lm.run()
            say("an assistant")
            yield from drafting.run()
        if has_mlx_vlm:
            yield from mlx_vlm.run()
    for task in generation.tasks(size, model, bits, requests):
        yield from generation.compare(task, say)
