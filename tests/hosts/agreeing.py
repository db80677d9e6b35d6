"""Assistants that agree with their model now and then: they know what usually follows a token.

Nothing is trained. The hidden state of such an assistant is a random map of the last token's
embedding, and its head the least-squares fit of the tokens that follow in some texts. Its layers
stay, a tenth as strong, so that what it attends to still shows in its numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma4_patches.gemma4 import tiny, tiny_assistant

_RIDGE = 0.3
_POST_NORMS = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")


def save(shape: str, folder: Path, texts: Sequence[Sequence[int]]) -> Path:
    """As ``tiny_assistant.save``, of an assistant that has seen ``texts``, as ids."""
    weights = {k: np.array(v) for k, v in tiny_assistant.weights(shape).items()}
    pairs = [pair for text in texts for pair in itertools.pairwise(text)]
    before, behind = (np.array(side) for side in zip(*pairs, strict=True))
    for name, value in weights.items():
        if name.endswith(_POST_NORMS):
            weights[name] = value * 0.1
    hidden = _hidden(shape, weights)[before]
    weights["model.embed_tokens.weight"] = _fit(hidden, behind, tiny.VOCABULARY)
    if (order := weights.get("masked_embedding.token_ordering")) is not None:
        count = len(weights["masked_embedding.centroids.weight"])
        cluster = np.empty_like(order)
        cluster[order] = np.arange(len(order)) // (len(order) // count)
        weights["masked_embedding.centroids.weight"] = _fit(hidden, cluster[behind], count)
    tiny_assistant.save(shape, folder)
    made = {name: mx.array(value) for name, value in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), made, {"format": "pt"})
    return folder


def _hidden(shape: str, weights: dict[str, np.ndarray]) -> np.ndarray:
    """What the head is given for each token, (vocabulary, hidden), but for the layers."""
    (table,) = (v for k, v in tiny.weights(shape).items() if k.endswith(".embed_tokens.weight"))
    table = np.array(table)
    size = table.shape[1]
    weights["pre_projection.weight"][:, size:] = 0  # the model's hidden state
    made = table * size**0.5 @ weights["pre_projection.weight"][:, :size].T
    made /= np.sqrt((made**2).mean(axis=1, keepdims=True) + 1e-6)
    return made * weights["model.norm.weight"]


def _fit(hidden: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """A linear head (count, hidden) that gives the wanted index for each row."""
    target = np.eye(count, dtype=np.float32)[wanted]
    square = hidden.T @ hidden + _RIDGE * np.eye(hidden.shape[1])
    return np.linalg.solve(square, hidden.T @ target).T.astype(np.float32)
