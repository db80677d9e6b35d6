"""What mlx-vlm answers to token ids: the tiny checkpoints, loaded, and greedy generation."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import tokenizer

_NEVER_SAID = tiny.MEDIA_IDS.start


class Loaded(NamedTuple):
    model: Any
    processor: Any

    def answer(self, ids: list[int], limit: int = 12, **how: Any) -> list[int]:
        """The tokens that follow ``ids``; every keyword is one of ``stream_generate``."""
        return list(self.stream(ids, limit, **how))[:limit]  # the last part repeats a token

    def stream(self, ids: list[int], limit: int = 12, **how: Any) -> Any:
        from mlx_vlm import stream_generate

        how = {"max_tokens": limit, "temperature": 0.0, **how}
        for part in stream_generate(*self, "", input_ids=mx.array([ids]), **how):
            yield int(part.token)

    def together(self, rows: list[list[int]], limit: int = 12, **how: Any) -> list[list[int]]:
        """The answers to prompts that arrive together; keywords are those of ``BatchGenerator``."""
        generator = importlib.import_module("mlx_vlm.generate").BatchGenerator(
            self.model.language_model, self.processor, compute_logprobs=False, **how
        )
        embedded = [self._embedded(row) for row in rows]
        said = {i: [] for i in generator.insert(rows, limit, prompt_kwargs=embedded)}
        while generator.has_work:
            for part in generator.next()[1]:
                said[part.uid].append(int(part.token))
        return list(said.values())

    def _embedded(self, ids: list[int]) -> dict[str, Any]:
        made = self.model.get_input_embeddings(mx.array([ids]), None).to_dict()
        # as the server has it; some releases take embeddings without it for media
        made["_apc_semantic_hash"] = 0
        return {name: value for name, value in made.items() if value is not None}


def load(shape: str, folder: Path) -> Loaded:
    """The tiny checkpoint of one shape, as the host loads it; no token ends an answer."""
    from mlx_vlm import load

    model, processor = load(str(save(shape, folder)))
    model.config.eos_token_id = [_NEVER_SAID]
    processor.tokenizer.stopping_criteria.reset([_NEVER_SAID])
    return Loaded(model, processor)


def save(shape: str, folder: Path) -> Path:
    """The tiny checkpoint of one shape with a tokenizer, in a folder of its own."""
    made = tiny.save(shape, folder / f"gemma-4-{shape}", shared_kv=shape == "e2b")
    tokenizer.save(made)
    return made
