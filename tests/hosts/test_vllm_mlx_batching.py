"""vllm-mlx with continuous batching answers unequal prompts as mlx-vlm answers each alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hosts import batching
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")

# Both shapes answer these without a special token, and never with two tokens nearly as likely.
_PROMPTS = (
    "One more",
    "Some words that do not fit into one window",
    "The longest prompt of all is several windows long, so that its oldest keys are gone for good",
)
_TOKENS = 24  # past the window of 16 for the shortest prompt, too


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_unequal_prompts_sent_at_once_are_answered_as_alone(shape: str, tmp_path: Path) -> None:
    folder = batching.save(shape, tmp_path / f"gemma-4-{shape}", batching.PLAIN_TEMPLATE)

    with serve("vllm_mlx", folder, "--continuous-batching", "--mllm") as post:

        def answer(prompt: str) -> str:
            body = {
                "model": str(folder),
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": _TOKENS,
                "temperature": 0,
            }
            answered = post("/v1/chat/completions", body)
            return answered["choices"][0]["message"]["content"] or ""

        with ThreadPoolExecutor(len(_PROMPTS)) as pool:
            answers = list(pool.map(answer, _PROMPTS))

    for prompt, answered in zip(_PROMPTS, answers, strict=True):
        assert answered.strip() == batching.alone(shape, folder, prompt, _TOKENS), prompt
