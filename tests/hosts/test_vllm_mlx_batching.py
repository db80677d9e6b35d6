"""vllm-mlx with continuous batching answers unequal prompts as mlx-vlm answers each alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.patches.mlx_vlm.tiny import model
from tests.hosts import tokenizer
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")

# The text alone, and no two prompts begin alike: the prefix cache has faults of its own.
_TEMPLATE = """{% for message in messages -%}
{% if message.content is string %}{{ message.content }}{% else -%}
{{ message.content[0].text }}{% endif %}{% endfor %}"""
# Both shapes answer these without a special token, and never with two tokens nearly as likely.
_PROMPTS = (
    "One more",
    "Some words that do not fit into one window",
    "The longest prompt of all is several windows long, so that its oldest keys are gone for good",
)
_TOKENS = 24  # past the window of 16 for the shortest prompt, too


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_unequal_prompts_sent_at_once_are_answered_as_alone(shape: str, tmp_path: Path) -> None:
    folder = tiny.save(shape, tmp_path / f"gemma-4-{shape}", shared_kv=shape == "e2b")
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(_TEMPLATE)

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

    decode = Tokenizer.from_file(str(folder / "tokenizer.json")).decode
    language_model = model(shape).language_model
    for prompt, answered in zip(_PROMPTS, answers, strict=True):
        assert answered.strip() == decode(_alone(language_model, prompt)).strip(), prompt


def _alone(language_model, prompt: str) -> list[int]:
    """Greedy tokens after one prompt."""
    cache = language_model.make_cache()
    new, made = tokenizer.ids(prompt), []
    for _ in range(_TOKENS):
        new = [mx.argmax(language_model(mx.array([new]), cache=cache).logits[0, -1]).item()]
        made += new
    return made
