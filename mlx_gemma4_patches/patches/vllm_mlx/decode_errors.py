"""A request that fails while it is decoded is never answered.

What the user sees: with continuous batching one error of the model, and the log repeats it for
ever; all requests of that batch wait, and those that come later.

Why: ``_process_loop`` logs what a step raises and takes the next one, with the same batch, on
caches that hold half of the failed step already.

The fix: after a failed step the requests that were in it end with an error. Those that wait are
served. It can be deleted when no supported release is older than vllm-mlx 0.5.0, which ends all
requests then.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_SCHEDULER = "vllm_mlx.mllm_scheduler:MLLMScheduler"


def probe() -> Finding:
    from vllm_mlx.mllm_scheduler import MLLMScheduler

    if hasattr(MLLMScheduler, "_fail_requests_after_step_error"):
        raise NotApplicable("this vllm-mlx ends the requests of a failed step")

    def fail():
        raise RuntimeError("a failed step")

    processor = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=1, name_or_path=""))
    scheduler = MLLMScheduler(model=SimpleNamespace(), processor=processor)
    request_id = scheduler.add_request("hi")
    scheduler.output_queues[request_id] = queue = asyncio.Queue()
    scheduler.running[request_id] = scheduler.waiting.popleft()
    scheduler.batch_generator = SimpleNamespace(
        next=fail, process_pending_removals=lambda: None, abort_prefill=lambda request_id: None
    )
    try:
        scheduler.step()
    except RuntimeError:
        pass
    finally:
        scheduler.batch_generator = None
    told = not queue.empty() and queue.get_nowait().finish_reason
    left = sorted(scheduler.running) != []
    outcome = "never answered" if left else f"answered with finish_reason {told}"
    return Finding(left, f"a request whose step failed is {outcome}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_SCHEDULER}.step", _step)


def _step(original):
    def step(self):
        try:
            return original(self)
        except Exception:
            _end_running(self)
            raise  # the loop logs it and goes on

    return step


def _end_running(scheduler) -> None:
    from vllm_mlx.request import RequestOutput

    if scheduler.batch_generator is not None:
        scheduler.batch_generator.active_batch = None
    for request_id in list(scheduler.running or scheduler.requests):
        if queue := scheduler.output_queues.get(request_id):
            queue.put_nowait(
                RequestOutput(request_id=request_id, finished=True, finish_reason="error")
            )
        scheduler.abort_request(request_id)


PATCH = Patch(
    id="vllm_mlx.decode_errors",
    targets=(f"{_SCHEDULER}.step", f"{_SCHEDULER}.abort_request", f"{_SCHEDULER}._process_loop"),
    apply=apply,
    probe=probe,
)
