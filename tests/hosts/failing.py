"""vllm-mlx's server with a model that fails where a prompt says so.

The model fails when it reads ``~``, and in every step of a conversation that has a ``^`` in its
prompt, from the third on. It never says either. As a program, takes the arguments of
``tests.hosts.server``.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator

import mlx.core as mx

import mlx_gemma4_patches
from tests.hosts import metal, server, tokenizer

READING, DECODING = "~", "^"


@contextlib.contextmanager
def model() -> Iterator[None]:
    """Within, mlx-vlm's Gemma 4 fails so."""
    from mlx_vlm.models.gemma4 import gemma4, language

    (reading,), (decoding,) = tokenizer.ids(READING), tokenizer.ids(DECODING)
    never = mx.array([reading, decoding])
    steps = None  # since a ^

    def failing(original):
        @functools.wraps(original)
        def call(self, inputs=None, *args, **named):
            nonlocal steps
            if inputs is None:  # only embeddings: whoever made them of ids fails too
                return original(self, inputs, *args, **named)
            ids = inputs.tolist()
            if any(reading in row for row in ids):
                raise RuntimeError("injected while reading")
            if any(decoding in row for row in ids):
                steps = 0
            elif len(ids[0]) > 1:  # another prompt
                steps = None
            elif steps is not None:
                steps += 1
                if steps > 2:
                    raise RuntimeError("injected while decoding")
            made = original(self, inputs, *args, **named)
            made.logits[..., never] = -1e4
            return made

        return call

    classes = (gemma4.Model, language.LanguageModel)
    originals = [each.__call__ for each in classes]
    for each in classes:
        each.__call__ = failing(each.__call__)
    try:
        yield
    finally:
        for each, original in zip(classes, originals, strict=True):
            each.__call__ = original


if __name__ == "__main__":
    mlx_gemma4_patches.activate()
    server.sample_greedily()
    metal.stand_in()
    with model():
        server.run(*sys.argv[1:])
