"""Commands print in words that the README explains."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.commands import doctor
from mlx_gemma4_patches.commands.screen import state_words
from mlx_gemma4_patches.doctor.examination import UNHEALTHY
from mlx_gemma4_patches.patch import State
from tests.matrix.table import README

VERDICTS = ["proved", "not_needed", "not_applicable", "opt_in", "not_probed", "foreign", *UNHEALTHY]


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_in_the_readme(state):
    assert f"| {state_words(state.value)} | `{state.value}` |" in README.read_text()


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_in_the_readme(verdict):
    assert f"\n| {doctor.verdict_words(verdict)} | " in README.read_text()
