"""The bench measures stock and patched in turn and reports medians."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches import __main__ as command_line
from mlx_gemma4_patches import activate, bench
from mlx_gemma4_patches.bench import comparing, drafting, generation, overhead, starting
from mlx_gemma4_patches.gemma4 import sizes


def test_figures_are_medians_and_the_order_alternates():
    order = []

    def measured(name, *seconds):
        left = list(seconds)

        def measure():
            order.append(name)
            return left.pop(0)

        return measure

    # the first of each warms up
    stock = measured("stock", 9.0, 1.0, 1.5, 2.0, 2.0, 4.0, 4.0)
    patched = measured("patched", 9.0, 1.0, 1.0, 8.0)
    row = comparing.compare("a kind", "a thing", "ms", stock, patched, rounds=3)
    assert (row["stock"], row["patched"], row["ratio"]) == (2e3, 1e3, 1.0)
    assert (row["spread"], row["noise"]) == ([0.5, 2.0], 0.0)
    assert (row["table"], row["what"], row["unit"]) == ("a kind", "a thing", "ms")
    assert order[2:] == ["stock", "patched", "stock"] * 3


def test_the_noise_is_what_stock_differs_by_from_itself():
    figures = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [1.1, 1.2, 0.7]]
    row = comparing.row("", "", "", ("alone", "together"), figures)
    assert (row["alone"], row["together"], row["ratio"]) == (1.0, 2.0, 2.0)
    assert row["noise"] == pytest.approx(0.2)


def test_generation_is_measured_in_processes_of_their_own(tmp_path):
    task = generation.Task("mlx_lm", "tiny", None, None, 2, repeats=1)
    told = []
    rows = list(generation.compare(task, told.append, rounds=1))
    assert [row["unit"] for row in rows] == ["ms", "tokens/s", "tokens/s", "GB"]
    assert all(row["stock"] > 0 and row["patched"] > 0 for row in rows)
    assert len(told) == 3 and told[0].endswith("stock, round 1 of 1")


def test_a_process_that_dies_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    task = generation.Task("mlx_lm", "tiny", str(tmp_path), None, 1)
    (row,) = generation.compare(task, lambda text: None)
    assert row["what"].endswith("stock") and row["error"].startswith("the process ended with 1: ")
    monkeypatch.setattr(bench, "run", lambda *a: iter([row]))
    assert command_line.main(["bench"]) == 1
    printed, said = capsys.readouterr()
    assert printed.count("\n") == 1 and said.count("\n") == 1 and "No safetensors" in said


@pytest.mark.parametrize("size", sizes.NAMES)
def test_the_layers_of_every_size_can_be_built(size):
    from mlx_lm.models import gemma4_text

    config = {**sizes.text_config(size), **overhead._NARROW}
    assert len(config["layer_types"]) == config["num_hidden_layers"]
    assert config["layer_types"][-1] == "full_attention"
    assert sizes.name_of(sizes.text_config(size)) == size
    model = gemma4_text.Model(gemma4_text.ModelArgs.from_dict(config))
    assert len(model.layers) == config["num_hidden_layers"]


def test_the_wrappers_add_few_calls_to_a_decode_step():
    activate()
    calls = [row for row in overhead.run(rounds=1) if row["unit"] == "calls"]
    assert len(calls) == 2
    for row in calls:
        assert row["noise"] == 0.0  # calls are the same each time
        assert 1.0 < row["ratio"] < 1.05


def test_an_assistant_that_is_right_gives_a_block_a_step(monkeypatch):
    monkeypatch.setattr(drafting, "TOKENS", 48)
    activate()
    rows = [row for row in drafting.run(rounds=1) if row["unit"] == ""]
    (right, wrong) = (row[row["columns"][1]] for row in rows)
    assert right == pytest.approx(drafting.DRAFTS + 1, rel=0.05)
    assert wrong == pytest.approx(1, rel=0.02)


def test_the_patches_are_on_again_after_stock_was_measured():
    from mlx_lm.models import cache

    activate()

    def code() -> object:
        return cache.RotatingKVCache.to_quantized.__code__

    stock, patched = comparing.stock_and_patched(code)
    wrapper = patched()
    assert stock() is not wrapper
    assert code() is wrapper


def test_start_up_is_measured_in_milliseconds():
    rows = list(starting.start_up(rounds=3))
    assert [row["what"] for row in rows] == ["start-up, no host imported", "start-up, switched off"]
    for row in rows:
        assert row["unit"] == "ms"
        assert row["stock"] > 1 and row["patched"] > 1
        assert row["ratio"] > 0
