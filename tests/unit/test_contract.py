"""Where a part of a patch is missing, the contract names the command that helps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlx_gemma4_patches import matrix, registry

contract = pytest.importorskip("tests.hosts.contract", reason="no mlx", exc_type=ImportError)

ID = "mlx_lm.cache_offset"
BARE = matrix.parse_row(ID, {"title": "t", "faulty": [{"mlx-lm": ">=0"}]})


@pytest.mark.parametrize(
    ("registered", "rows", "command"),
    [
        ([], {ID: BARE}, "pip install"),
        ([SimpleNamespace(name=ID)], {}, "python -m tests.new mlx_lm.cache_offset"),
        ([SimpleNamespace(name=ID)], {ID: BARE}, 'tests.matrix --write --tests none "mlx-lm"'),
    ],
    ids=["entry point", "row", "fingerprints"],
)
def test_what_is_missing_is_named_with_its_command(monkeypatch, registered, rows, command):
    monkeypatch.setattr(registry, "registered", lambda: registered)
    monkeypatch.setattr(matrix, "load", lambda: SimpleNamespace(rows=rows))
    with pytest.raises(AssertionError) as caught:
        contract.require_all_parts(ID)
    assert command in str(caught.value)
