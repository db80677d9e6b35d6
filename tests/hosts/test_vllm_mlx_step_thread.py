"""The thread that vllm-mlx's multimodal steps run in."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from tests.hosts.contract import PatchContract

ID = "vllm_mlx.step_thread"


def _steps(waiting: int, step) -> list[threading.Thread]:
    """The threads of three steps, with so many prompts waiting."""
    scheduler_class = pytest.importorskip("vllm_mlx.mllm_scheduler").MLLMScheduler
    threads = []

    def one_step():
        threads.append(threading.current_thread())
        scheduler._running = len(threads) < 3
        step()

    scheduler = SimpleNamespace(
        _running=True,
        batch_generator=None,
        get_num_waiting=lambda: waiting,
        has_requests=lambda: True,
        step=one_step,
        _fail_requests_after_step_error=lambda error: None,  # 0.6.0
    )
    asyncio.run(scheduler_class._process_loop(scheduler))
    return threads


class TestStepThread(PatchContract):
    id = ID

    def untouched(self):
        return [thread.name for thread in _steps(waiting=0, step=lambda: None)]


def test_every_step_runs_in_the_thread_of_the_event_loop() -> None:
    for waiting in (0, 1):
        assert _steps(waiting, lambda: None) == [threading.current_thread()] * 3


def test_a_step_that_fails_does_not_end_the_loop() -> None:
    def fail():
        raise ValueError("a broken prompt")

    assert len(_steps(1, fail)) == 3
