"""What a real server owes, whoever asks when: transformers' text."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tokenizers import Tokenizer

from tests.hosts.server import Server

_ANSWERS = json.loads((Path(__file__).parent.parent / "reference/answers.json").read_text())
_TOKENS = 24


def check(server: Server, shape: str, folder: Path, at_once: bool = True) -> None:
    """The prompts of ``answers.json`` asked one by one, and before that all at the same time.

    ``folder`` has the tiny checkpoint of ``shape`` with ``batching.PLAIN_TEMPLATE``.
    """
    decode = Tokenizer.from_file(str(folder / "tokenizer.json")).decode
    wanted = {prompt: decode(ids).strip() for prompt, ids in _ANSWERS[shape].items()}

    def answer(prompt: str) -> str:
        body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0}
        body |= {"model": str(folder), "max_tokens": _TOKENS}
        text = server("/v1/chat/completions", body)["choices"][0]["message"]["content"]
        return text.strip()

    if at_once:
        with ThreadPoolExecutor(len(wanted)) as pool:
            assert dict(zip(wanted, pool.map(answer, wanted), strict=True)) == wanted
    assert {prompt: answer(prompt) for prompt in wanted} == wanted
