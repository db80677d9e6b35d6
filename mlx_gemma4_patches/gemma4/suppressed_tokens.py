"""Tokens that Gemma 4 must not say: ``suppress_tokens`` of generation_config.json.

The 12B names ``<image|>`` and ``<audio|>``, which it otherwise says now and then. transformers
gives them no chance in any step (SuppressTokensLogitsProcessor, 5.23), before it samples and before
the caller's own processors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from .config import vocabulary_size
from .stop_tokens import added_tokens, is_gemma4_folder, read, token_ids

_NOTE = "_mlx_gemma4_suppress_tokens"


class SuppressTokens:
    """A logits processor that gives some tokens no chance.

    Args:
        ids: the tokens.
        vocabulary: the number of token ids that the model can produce.
    """

    def __init__(self, ids: Sequence[int], vocabulary: int):
        self._suppressed = mx.zeros(vocabulary, mx.bool_)
        self._suppressed[mx.array(ids)] = True
        mx.eval(self._suppressed)  # a lazy array of one thread cannot be evaluated in another

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Logits (..., vocabulary) with -inf for the suppressed tokens, in their own dtype."""
        return mx.where(self._suppressed, -mx.inf, logits)

    process_last_token = __call__  # mlx-vlm's, of a processor that needs no more than that token


def note(model: Any, processor: SuppressTokens) -> None:
    """Note on a model what it must not say."""
    setattr(model, _NOTE, processor)


def noted(model: Any) -> SuppressTokens | None:
    """What is noted on a model, also if this is a view of it; None where nothing is."""
    found = getattr(model, _NOTE, None)
    return found if isinstance(found, SuppressTokens) else None  # a mock answers to every name


def of_gemma4(folder: Path) -> SuppressTokens | None:
    """The processor for the model in ``folder``; None for other models, and if nothing is named.

    What counts as a token id, and what is warned of, is as for stop tokens. Never raises.
    """
    named = read(folder / "generation_config.json").get("suppress_tokens")
    if named is None or not is_gemma4_folder(folder):
        return None
    tokens = added_tokens(folder / "tokenizer.json")
    vocabulary = vocabulary_size(read(folder / "config.json"))
    values = {"generation_config.json": named}
    ids = token_ids(folder, values, "suppressed tokens", tokens, vocabulary)
    return SuppressTokens(ids, vocabulary) if ids else None
