"""vllm-mlx's real server with a drafter: transformers' text, one by one and in batches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import tiny_assistant
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import agreeing, batching, company, texts
from tests.hosts.contract import skip_unless_needed
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")


def test_every_answer_is_that_of_transformers(tmp_path: Path) -> None:
    skip_unless_needed("vllm_mlx.mtp_rollback")
    folder = batching.save("dense", tmp_path / "gemma-4", batching.PLAIN_TEMPLATE)
    assistant = str(tiny_assistant.save("dense", tmp_path / "assistant"))
    options = ("--mllm-draft-model", assistant, "--mllm-draft-kind", "mtp", "--default-mllm-draft")
    with serve("vllm_mlx", folder, "--mllm", "--continuous-batching", *options) as server:
        texts.check(server, "dense", folder)


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_in_company_the_answers_are_those_without_a_drafter(tmp_path: Path, shape: str) -> None:
    skip_unless_needed("vllm_mlx.mtp_rollback")
    folder, target = batching.save(shape, tmp_path / "gemma-4"), model(shape)
    batched = ("--mllm", "--continuous-batching")
    with serve("vllm_mlx", folder, *batched) as server:
        wanted = company.answers(server, folder)
    said = company.texts(folder, lambda prompt, limit: answer(target, prompt, limit))
    assistant = str(agreeing.save(shape, tmp_path / "assistant", said))
    options = ("--mllm-draft-model", assistant, "--mllm-draft-kind", "mtp", "--default-mllm-draft")
    with serve("vllm_mlx", folder, *batched, *options) as server:
        company.check(server, folder, wanted)
        *_, counts = re.findall(r"accepted=(\d+) rejected=(\d+) errors=0", server.log.read_text())
    assert all(int(number) > 0 for number in counts)
