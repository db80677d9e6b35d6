"""vllm-mlx 0.2.8 and 0.2.9 never answer a multimodal request on today's mlx.

What the user sees: the client waits for ever; the log repeats ``There is no Stream(gpu, 1) in
current thread``.

Why: with continuous batching a step that has a prompt to process runs in a worker thread and every
other step in the event loop's. A stream of mlx belongs to the thread that made it (on Metal from
0.31.2 on, on CPU from 0.32.0 on), so what one has left to compute the other cannot.

The fix: the worker's steps run in the event loop's thread, as vllm-mlx has it from 0.3.0 on
(waybarrios/vllm-mlx#399). It can be deleted when no supported release is older than that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from types import SimpleNamespace

from ...patch import Finding, Patch
from ...surgery import Surgery

_SCHEDULER = "vllm_mlx.mllm_scheduler"


def probe() -> Finding:
    from vllm_mlx.mllm_scheduler import MLLMScheduler

    threads = []

    def step():
        threads.append(threading.current_thread())
        scheduler._running = False

    scheduler = SimpleNamespace(
        _running=True,
        batch_generator=None,
        get_num_waiting=lambda: 1,
        has_requests=lambda: True,
        step=step,
    )
    asyncio.run(MLLMScheduler._process_loop(scheduler))
    faulty = threads != [threading.current_thread()]
    where = "another thread than the one" if faulty else "the thread"
    return Finding(faulty, f"a prompt is processed in {where} that loaded the model")


class _SameThread(concurrent.futures.Executor):
    """Runs what is submitted at once, in the thread that submits it."""

    def __init__(self, *args, **kwargs):
        """Takes what a ThreadPoolExecutor takes."""

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def apply(surgery: Surgery) -> None:
    futures = SimpleNamespace(ThreadPoolExecutor=_SameThread)
    surgery.replace(f"{_SCHEDULER}:concurrent", SimpleNamespace(futures=futures))


PATCH = Patch(
    id="vllm_mlx.step_thread",
    targets=(f"{_SCHEDULER}:MLLMScheduler._process_loop",),
    apply=apply,
    probe=probe,
)
