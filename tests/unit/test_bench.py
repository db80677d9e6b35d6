"""The bench measures stock and patched in turn and reports medians."""

from __future__ import annotations

from mlx_gemma4_patches.bench import comparing, starting


def test_figures_are_medians_and_the_order_alternates():
    order = []

    def measured(name, *seconds):
        left = list(seconds)

        def measure():
            order.append(name)
            return left.pop(0)

        return measure

    stock = measured("stock", 9.0, 1.0, 2.0, 4.0)  # the first warms up
    patched = measured("patched", 9.0, 1.0, 1.0, 8.0)
    row = comparing.compare("a thing", "ms", stock, patched, rounds=3)
    assert row == {"what": "a thing", "stock": 2e3, "patched": 1e3, "ratio": 1.0, "unit": "ms"}
    assert order == ["stock", "patched"] * 2 + ["patched", "stock"] + ["stock", "patched"]


def test_start_up_is_measured_in_milliseconds():
    rows = list(starting.start_up(rounds=3))
    assert [row["what"] for row in rows] == ["start-up, no host imported", "start-up, switched off"]
    for row in rows:
        assert row["unit"] == "ms"
        assert row["stock"] > 1 and row["patched"] > 1
        assert row["ratio"] > 0
