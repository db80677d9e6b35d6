"""When an assistant is left aside, and when it is tried again."""

from __future__ import annotations

import logging

import pytest

from mlx_gemma4_patches.gemma4.draft_plan import ALWAYS, DraftPlan


def _run(plan: DraftPlan, steps: int, accepted: int, cost: float) -> list[int]:
    """The drafts of each step, where one with drafts costs ``cost`` plain ones."""
    made = []
    for _ in range(steps):
        drafts = plan.drafts()
        plan.record(drafts, min(accepted, drafts), cost if drafts else 1.0)
        made.append(drafts)
    return made


def test_a_drafter_that_wins_drafts_on() -> None:
    drafts = _run(DraftPlan(3), 400, accepted=1, cost=1.3)
    assert drafts.count(0) == 8  # what it was compared with


def test_one_that_is_often_right_is_not_even_compared() -> None:
    assert 0 not in _run(DraftPlan(3), 400, accepted=2, cost=1.3)


def test_one_that_loses_is_left_aside_for_longer_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "mlx_gemma4_patches"):
        drafts = _run(DraftPlan(3), 3000, accepted=0, cost=1.3)
    assert sum(count > 0 for count in drafts) < 3000 * 0.05
    pauses = [len(part) for part in "".join("x" if n else " " for n in drafts).split("x") if part]
    assert pauses[:5] == [8 + 64, 128, 256, 512, 1024]
    assert "left aside for 64 tokens: 1.00 tokens a step" in caplog.text


def test_it_comes_back_when_the_text_suits_it() -> None:
    plan = DraftPlan(3)
    _run(plan, 60, accepted=0, cost=1.3)
    assert plan.drafts() == 0
    assert _run(plan, 400, accepted=3, cost=1.3)[-300:] == [3] * 300


def test_the_summary_counts_drafts_and_steps() -> None:
    plan = DraftPlan(3)
    _run(plan, 10, accepted=2, cost=1.0)
    assert str(plan) == "drafts: 30, accepted: 20, 3.00 tokens a target step"


def test_the_user_may_want_drafts_whatever_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALWAYS, "1")
    assert 0 not in _run(DraftPlan(3), 100, accepted=0, cost=9.0)


def test_a_first_step_that_compiles_does_not_count() -> None:
    plan = DraftPlan(3)
    plan.record(plan.drafts(), 1, 500.0)
    assert _run(plan, 100, accepted=1, cost=1.3).count(0) == 8
