"""mlx-vlm's real server with a drafter: transformers' text, one by one and in batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import tiny_assistant
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import agreeing, batching, company, texts
from tests.hosts.contract import skip_unless_needed
from tests.hosts.server import serve

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


def test_every_answer_is_that_of_transformers(tmp_path: Path) -> None:
    skip_unless_needed("mlx_vlm.mtp_kv_bits")  # where there are drafters
    folder = batching.save("dense", tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    assistant = str(tiny_assistant.save("dense", tmp_path / "assistant"))
    options = ("--draft-model", assistant, "--draft-kind", "mtp")
    with serve("mlx_vlm", folder, *options) as server:
        texts.check(server, "dense", folder)


@pytest.mark.parametrize("environ", [{}, {"APC_ENABLED": "1"}], ids=["", "APC"])
def test_in_company_the_answers_are_those_without_a_drafter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    skip_unless_needed("mlx_vlm.mtp_kv_bits")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    folder, target = batching.save("dense", tmp_path / "gemma-4"), model("dense")
    with serve("mlx_vlm", folder) as server:
        wanted = company.answers(server, folder)
    said = company.texts(folder, lambda prompt, limit: answer(target, prompt, limit))
    assistant = str(agreeing.save("dense", tmp_path / "assistant", said))
    options = ("--draft-model", assistant, "--draft-kind", "mtp")
    with serve("mlx_vlm", folder, *options) as server:
        company.check(server, folder, wanted)
        body = {"model": str(folder), **company.requests()[2]}
        counts = server("/v1/chat/completions", body).get("timings") or {}
    if counts.get("draft_rounds") is not None:  # releases that count them
        assert 0 < counts["draft_n_accepted"] < counts["draft_n"]
