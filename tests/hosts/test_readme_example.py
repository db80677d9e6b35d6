"""The README's example of a patch is one that runs."""

from __future__ import annotations

import re

import pytest

from mlx_gemma4_patches.surgery import Surgery
from tests.matrix.table import README

cache = pytest.importorskip("mlx_lm.models.cache")


@pytest.fixture
def patch():
    section = README.read_text(encoding="utf-8").partition("## Write a patch")[2]
    (source,) = re.findall("```python\n(.*?)```", section, re.DOTALL)
    names = {}
    exec(source, names)
    return names["PATCH"]


def test_the_probe_runs_and_the_patch_wraps_and_goes(patch):
    stock = cache.KVCache.size
    assert not patch.probe().faulty
    surgery = Surgery(patch.id, patch.targets)
    patch.apply(surgery)
    try:
        assert cache.KVCache.size is not stock
        assert cache.KVCache().size() == 0
        assert not patch.probe().faulty
    finally:
        surgery.undo()
    assert cache.KVCache.size is stock


def test_the_probe_shows_a_fault(patch, monkeypatch):
    monkeypatch.setattr(cache.KVCache, "size", lambda self: 0)
    finding = patch.probe()
    assert finding == (True, "a cache of 3 tokens has size 0")
    surgery = Surgery(patch.id, patch.targets)
    patch.apply(surgery)
    assert patch.probe() == (False, "a cache of 3 tokens has size 3")
    surgery.undo()
