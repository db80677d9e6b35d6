"""Gemma 4's assistants as a model of mlx-lm: what ``mlx_lm.models.gemma4_assistant`` would be.

An assistant is no language model. It has four layers with queries of their own and no keys and
values; they attend to those of its target's last full and last sliding layer. It goes from the
target's embedding of the last token and the target's last hidden state to the next token, and to a
hidden state from which it can go on. Layout and order are those of transformers 5.24
(``modeling_gemma4_assistant.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gemma4_text
from mlx_lm.models.base import BaseModelArgs


@dataclass
class ModelArgs(BaseModelArgs):
    text_config: dict[str, Any]
    backbone_hidden_size: int
    model_type: str = "gemma4_assistant"
    use_ordered_embeddings: bool = False
    num_centroids: int = 2048
    centroid_intermediate_top_k: int = 32
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        given = self.text_config
        # none of the layers has keys and values, or inputs of its own, whether the file says so
        shared = given.get("num_kv_shared_layers") or given["num_hidden_layers"]
        own = {"num_kv_shared_layers": shared, "hidden_size_per_layer_input": 0}
        self.text = gemma4_text.ModelArgs.from_dict({**given, **own})


class Stack(nn.Module):
    """The assistant's layers; its embeddings are its head."""

    def __init__(self, text: gemma4_text.ModelArgs):
        super().__init__()
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.layers = [gemma4_text.DecoderLayer(text, i) for i in range(text.num_hidden_layers)]
        self.norm = nn.RMSNorm(text.hidden_size, eps=text.rms_norm_eps)


class Clusters(nn.Module):
    """Which tokens are worth scoring: those of the clusters whose centroids fit best."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.centroids = nn.Linear(args.text.hidden_size, args.num_centroids, bias=False)
        self.token_ordering = mx.zeros((args.text.vocab_size,), dtype=mx.int32)
        self.freeze(keys="token_ordering", recurse=False)
        self._kept = args.centroid_intermediate_top_k

    def tokens(self, hidden: mx.array) -> mx.array:
        """(hidden,) -> the ids of the kept clusters' tokens, in one row."""
        best = mx.argpartition(-self.centroids(hidden), self._kept - 1)[: self._kept]
        return self.token_ordering.reshape(self.centroids.weight.shape[0], -1)[best].flatten()


class Model(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = Stack(args.text)
        inner, outer = args.text.hidden_size, args.backbone_hidden_size
        self.pre_projection = nn.Linear(2 * outer, inner, bias=False)
        self.post_projection = nn.Linear(inner, outer, bias=False)
        if args.use_ordered_embeddings:
            self.masked_embedding = Clusters(args)
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(inner, args.text.vocab_size, bias=False)

    def __call__(
        self,
        embedding: mx.array,
        hidden: mx.array,
        keys_values: Mapping[str, tuple[mx.array, mx.array]],
        position: mx.array,
    ) -> tuple[mx.array, mx.array]:
        """One step.

        Args:
            embedding: (1, 1, backbone), the target's of the last token, scaled.
            hidden: (1, 1, backbone), the target's before its head, or this method's.
            keys_values: the target's by type of layer, each (1, heads, tokens, head size).
            position: of the query, the same for all steps of a block.

        Returns:
            The hidden state to go on from, (1, 1, backbone), and the best token, (1, 1).
        """
        h = self.pre_projection(mx.concatenate([embedding, hidden], axis=-1))
        for layer in self.model.layers:
            shared = keys_values[layer.layer_type]
            h, _, _ = layer(h, None, None, shared_kv=shared, offset=position)
        h = self.model.norm(h)
        return self.post_projection(h), self._best(h)

    def draft(
        self,
        embed: Callable[[mx.array], mx.array],
        token: mx.array,
        hidden: mx.array,
        keys_values: Mapping[str, tuple[mx.array, mx.array]],
        position: int,
        count: int,
    ) -> mx.array:
        """The ``count`` tokens that may follow ``token`` (1, 1), as (count,)."""
        said, place = [], mx.array(position)
        for _ in range(count):
            hidden, token = self(embed(token), hidden, keys_values, place)
            said.append(token)
        return mx.concatenate(said, axis=1)[0]

    def _best(self, h: mx.array) -> mx.array:
        if not self.args.use_ordered_embeddings:
            tied = self.args.tie_word_embeddings
            head = self.model.embed_tokens.as_linear if tied else self.lm_head
            return mx.argmax(head(h), axis=-1)
        tokens = self.masked_embedding.tokens(h[0, 0])
        scores = self.model.embed_tokens(tokens) @ h[0, 0]
        return tokens[mx.argmax(scores)].reshape(1, 1).astype(mx.uint32)

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        if self.args.tie_word_embeddings:
            weights = {k: v for k, v in weights.items() if not k.startswith("lm_head.")}
        order = "masked_embedding.token_ordering"
        return {k: v.astype(mx.int32) if k == order else v for k, v in weights.items()}

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers

    def make_cache(self) -> list[Any]:
        """None: what has been read is the target's."""
        return []
