"""mlx-vlm's server processes what is new in a turn, and answers as in a fresh run."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model, processor
from tests.hosts import conversations, reuse
from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_vlm.apc", reason="no prefix cache in this mlx-vlm")


class TestPrefixReuse(PatchContract):
    id = "mlx_vlm.prefix_reuse"

    def untouched(self) -> Any:
        """What a batch generator without a prefix cache makes."""
        made = model("e2b")
        generator = importlib.import_module("mlx_vlm.generate").BatchGenerator(
            made.language_model, processor(), compute_logprobs=False
        )
        rows = [tiny.prompt(24), tiny.prompt(5)]
        embedded = [made.get_input_embeddings(mx.array([row]), None).to_dict() for row in rows]
        generator.insert(rows, 3, prompt_kwargs=embedded)
        said = []
        while generator.has_work:
            said += [(part.uid, int(part.token)) for part in generator.next()[1]]
        return said


@pytest.mark.parametrize(("route", "shape"), [("mlx_vlm", "e2b"), ("mlx_vlm APC", "dense")])
def test_a_turn_processes_what_is_new_in_it(route, shape, tmp_path: Path) -> None:
    with reuse.client(reuse.ROUTES[route], tmp_path / "model", shape) as made:
        conversations.chat(made.ask)
        conversations.tools(made.ask, "c", thinking=True)
    reuse.check(made.turns)


def test_requests_at_once_process_their_system_prompt_once(tmp_path: Path) -> None:
    with reuse.client(reuse.ROUTES["mlx_vlm"], tmp_path / "model") as made:
        made.ask_together("h1", conversations.together(1))
    (turn,) = made.turns
    assert not turn.wrong
    assert turn.processed < 1.3 * turn.new  # rows of one step are padded to the longest


def test_nothing_is_kept_where_the_user_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLX_GEMMA4_PATCHES_PREFIX_BYTES", "0")
    with reuse.client(reuse.ROUTES["mlx_vlm"], tmp_path / "model") as made:
        conversations.two(made.ask)
    for turn in made.turns:
        assert not turn.wrong
        assert turn.processed == len(turn.prompt)
