"""mlx_vlm.mtp_ragged: a batch with a drafter says what each prompt is answered alone."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.drafting import answer, answers, drafter, knowing
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.drafters import RIGHTNESS


class TestMtpRagged(PatchContract):
    id = "mlx_vlm.mtp_ragged"

    def untouched(self) -> Any:
        target, prompts = model("dense"), [tiny.prompt(9), tiny.prompt(30)]
        plain = [answer(target, prompt, 12) for prompt in prompts]
        texts = [prompt + said for prompt, said in zip(prompts, plain, strict=True)]
        draft = knowing(drafter("dense"), texts, RIGHTNESS["always right"])
        return answers(target, prompts, 6, draft)

    @pytest.mark.parametrize(("shape", "drafts"), [("e2b", 3), ("dense", 7)])
    def test_rows_that_accept_unequally_say_what_they_say_alone(
        self, shape: str, drafts: int
    ) -> None:
        skip_unless_needed(self.id)
        target, limit = model(shape), 14
        prompts = [tiny.prompt(n) for n in (5, 40)]
        plain = [answer(target, prompt, limit + 8) for prompt in prompts]
        texts = [prompt + said for prompt, said in zip(prompts, plain, strict=True)]
        draft = knowing(drafter(shape), texts, RIGHTNESS["right two times of three"])

        assert answers(target, prompts, limit, draft, drafts) == [row[:limit] for row in plain]
