"""Copied as ``conftest.py`` beside a host's tests: what exits or hangs fails, and no more."""

from __future__ import annotations

import signal

import pytest

PATIENCE = 120  # seconds for a test
NO_END = "no end after"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    try:
        return (yield)
    except SystemExit as error:  # of a script that is no test; pytest would end with it
        return pytest.CollectReport(collector.nodeid, "failed", repr(error), [])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    def give_up(number, frame):
        pytest.fail(f"{NO_END} {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
