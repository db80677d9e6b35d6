"""mlx-vlm's server processes what is new in a turn, and answers as in a fresh run."""

from __future__ import annotations

import importlib
import importlib.util
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


def test_a_turn_processes_what_is_new_in_it(tmp_path: Path) -> None:
    route = reuse.ROUTES["mlx_vlm"]
    with reuse.client(route, tmp_path / "model") as made:
        reuse.hold(made, route, "acsh" + ("d" if _has_anthropic_endpoint() else ""))
    reuse.check(made.turns)


def _has_anthropic_endpoint() -> bool:
    try:
        return importlib.util.find_spec("mlx_vlm.server.anthropic") is not None
    except ModuleNotFoundError:  # its server is one file
        return False


def test_what_is_on_disk_survives_a_restart_and_bad_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "apc"
    monkeypatch.setenv("APC_DISK_PATH", str(disk))  # before 0.7.1 there is none unless one is named
    route = reuse.ROUTES["mlx_vlm APC"]
    with reuse.client(route, tmp_path / "model", "dense") as made:
        conversations.two(made.ask)
        files = reuse.written(disk)
    bad = (
        files[0].read_bytes()[:-100],
        b"no tensors",
        (made.folder / "model.safetensors").read_bytes(),
    )
    for number, content in enumerate(bad):  # half written, damaged, another program's
        files[0].with_name(f"exact_{number:032x}.safetensors").write_bytes(content)
    with reuse.running(made, route):
        conversations.two(made.ask)
    first = made.turns[4]
    assert first.tag == "gx1" and first.processed < len(first.prompt)
    assert not any(turn.wrong for turn in made.turns)


def test_nothing_is_kept_where_the_user_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLX_GEMMA4_PATCHES_PREFIX_BYTES", "0")
    with reuse.client(reuse.ROUTES["mlx_vlm"], tmp_path / "model") as made:
        conversations.two(made.ask)
    for turn in made.turns:
        assert not turn.wrong
        assert turn.processed == len(turn.prompt)
