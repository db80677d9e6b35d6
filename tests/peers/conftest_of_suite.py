"""Copied as ``conftest.py`` beside a host's tests: a file that exits is one that failed."""

from __future__ import annotations

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    try:
        return (yield)
    except SystemExit as error:  # of a script that is no test; pytest would end with it
        return pytest.CollectReport(collector.nodeid, "failed", repr(error), [])
