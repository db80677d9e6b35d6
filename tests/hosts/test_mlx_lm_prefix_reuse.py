"""mlx-lm's server processes what is new in a turn, and answers as in a fresh run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import conversations, reuse
from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestPrefixReuse(PatchContract):
    id = "mlx_lm.prefix_reuse"

    def untouched(self) -> Any:
        """What a batch generator that serves nobody's conversations makes."""
        from mlx_lm.generate import BatchGenerator

        generator = BatchGenerator(text_model("e2b"), max_tokens=3)
        generator.insert([tiny.prompt(24), tiny.prompt(5)])
        said = []
        while len(said) < 6:
            said += [(r.uid, r.token, r.logprobs) for r in generator.next()[1]]
        return said


@pytest.mark.parametrize(("shape", "style"), [("e2b", "july"), ("moe", "april"), ("dense", "may")])
def test_a_turn_processes_what_is_new_in_it(shape, style, tmp_path: Path) -> None:
    with reuse.client(reuse.ROUTES["mlx_lm"], tmp_path / "model", shape, style) as made:
        conversations.tools(made.ask, "c", thinking=True)
        conversations.two(made.ask)
    reuse.check(made.turns)


@pytest.mark.parametrize("name", ["mlx_lm", "mlx_lm alone", "mlx_lm draft"])
def test_so_does_one_that_takes_many_steps(name, tmp_path: Path) -> None:
    route = reuse.ROUTES[name]
    steps = ("--prefill-step-size", "100")
    route = dataclasses.replace(route, arguments=(*route.arguments, *steps))
    with reuse.client(route, tmp_path / "model") as made:
        conversations.chat(made.ask)
    reuse.check(made.turns)


def test_requests_at_once_process_their_system_prompt_once(tmp_path: Path) -> None:
    with reuse.client(reuse.ROUTES["mlx_lm"], tmp_path / "model") as made:
        for wave in (1, 2):
            made.ask_together(f"h{wave}", conversations.together(wave))
    for turn in made.turns:
        assert not turn.wrong
        assert turn.processed < 1.3 * turn.new  # rows of one step are padded to the longest
