"""mlx-vlm's tiny models with the image prompts of tests/reference and transformers' soft tokens.

The vision tower stands aside, so that only what the text model makes of images is tested.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from mlx_gemma4_patches.gemma4 import tiny as gemma4_tiny
from mlx_gemma4_patches.hosts.mlx_vlm import tiny
from tests.hosts.parity import reference

PROMPTS = ("images", "adjacent")
PIXELS = mx.zeros((1, 3, 48, 48))  # something to be replaced


def square(seed: int) -> mx.array:
    """A picture of 2 x 2 soft tokens."""
    return mx.array(gemma4_tiny.image(2, 2, seed))


def wide(seed: int) -> mx.array:
    """A picture of 2 x 3 soft tokens."""
    return mx.array(gemma4_tiny.image(2, 3, seed))


def pixels(*pictures: mx.array) -> mx.array | list[mx.array]:
    """What a processor makes of them: one array if they are of one size."""
    one_size = all(picture.shape == pictures[0].shape for picture in pictures)
    return mx.stack(pictures) if one_size else list(pictures)


class Pictured:
    """A model that sees ``features_images`` whenever it is given pixels."""

    def __init__(self, shape: str):
        self.expected = reference(shape)
        self.model = tiny.model(shape)
        features = self.expected["features_images"]
        self.model.vision_tower = lambda *_: features
        self.model.embed_vision = lambda soft_tokens: soft_tokens

    @property
    def language_model(self) -> Any:
        return self.model.language_model

    def ids(self, name: str) -> mx.array:
        """int (1, L)."""
        return self.expected[f"ids_{name}"][None]

    def embedded(self, ids: mx.array, start: int = 0, stop: int | None = None) -> dict[str, Any]:
        """Arguments of the language model for columns ``start:stop`` of ``ids`` (1, L)."""
        made = self.model.get_input_embeddings(ids, PIXELS if self._has_images(ids) else None)
        columns = slice(start, stop)
        part = {"inputs": ids[:, columns], "inputs_embeds": made.inputs_embeds[:, columns]}
        if made.per_layer_inputs is not None:
            part["per_layer_inputs"] = made.per_layer_inputs[:, columns]
        return part

    def batch(self, prompts: list[mx.array]) -> dict[str, mx.array]:
        """Arguments of the language model for ``prompts``, (1, L) each, padded on the left."""
        length = max(ids.shape[1] for ids in prompts)
        parts = [self.embedded(ids) for ids in prompts]
        return {
            name: mx.concatenate([_left_padded(part[name], length) for part in parts])
            for name in parts[0]
        }

    def logits(self, ids: mx.array, cuts: tuple[int, ...] = (), cache: Any = None) -> mx.array:
        """(1, L) ids, fed in parts that begin at ``cuts`` too -> (L, vocabulary)."""
        starts = (0, *cuts)
        stops = (*cuts, ids.shape[1])
        return mx.concatenate(
            [
                self.language_model(**self.embedded(ids, start, stop), cache=cache).logits[0]
                for start, stop in zip(starts, stops, strict=True)
            ]
        )

    def greedy(self, ids: mx.array, count: int, **options: Any) -> list[int]:
        """The ``count`` tokens that ``generate_step`` says after a prompt."""
        return [token for token, _ in self._steps(ids, max_tokens=count, **options)]

    def first_logprobs(self, ids: mx.array, **options: Any) -> mx.array:
        """What the first token is chosen by, (vocabulary,)."""
        return next(self._steps(ids, max_tokens=1, **options))[1]

    def _steps(self, ids: mx.array, **options: Any) -> Iterator[tuple[int, mx.array]]:
        generate = importlib.import_module("mlx_vlm.generate")  # also the name of a function there
        pixels = PIXELS if self._has_images(ids) else None
        return generate.generate_step(ids, self.model, pixels, None, temperature=0.0, **options)

    def _has_images(self, ids: mx.array) -> bool:
        return (ids == self.model.config.image_token_id).any().item()


def _left_padded(values: mx.array, length: int) -> mx.array:
    """``values`` (1, L, ...) with zeros before them."""
    more = [(0, 0)] * (values.ndim - 2)
    return mx.pad(values, [(0, 0), (length - values.shape[1], 0), *more])
