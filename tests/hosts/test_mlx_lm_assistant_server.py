"""mlx-lm's real server with an assistant: transformers' text, at once and one by one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import draft_plan, tiny_assistant
from tests.hosts import agreeing, batching, company, texts
from tests.hosts.contract import skip_unless_needed
from tests.hosts.drafting import plain
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def test_every_answer_is_that_of_transformers(tmp_path: Path) -> None:
    skip_unless_needed("mlx_lm.assistant")
    folder = batching.save("dense", tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    assistant = tiny_assistant.save("dense", tmp_path / "assistant")
    options = ("--draft-model", str(assistant), "--num-draft-tokens", "3")
    with serve("mlx_lm", folder, *options) as server:
        texts.check(server, "dense", folder)


def test_in_company_the_answers_are_those_without_an_assistant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model

    skip_unless_needed("mlx_lm.assistant")
    monkeypatch.setenv(draft_plan.ALWAYS, "1")
    folder, model = batching.save("e2b", tmp_path / "gemma-4"), text_model("e2b")
    with serve("mlx_lm", folder) as server:
        wanted = company.answers(server, folder)
    said = company.texts(folder, lambda prompt, limit: plain(model, prompt, limit))
    assistant = agreeing.save("e2b", tmp_path / "assistant", said)
    options = ("--draft-model", str(assistant), "--num-draft-tokens", "3")
    with serve("mlx_lm", folder, *options) as server:
        company.check(server, folder, wanted)
        counts = re.findall(r"drafts: (\d+), accepted: (\d+)", server.log.read_text())
    drafts, accepted = (sum(map(int, numbers)) for numbers in zip(*counts, strict=True))
    assert 0 < accepted < drafts
