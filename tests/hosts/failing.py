"""vllm-mlx's server with a model that fails where a prompt says so.

A prompt that ends with ``~`` fails when it is read. ``^`` in a prompt makes the third step after it
fail, whatever it is a step of. As a program, takes the arguments of ``tests.hosts.server``.
"""

from __future__ import annotations

import sys

import mlx_gemma4_patches
from tests.hosts import metal, server, tokenizer

READING, DECODING = "~", "^"


def fail() -> None:
    """Wrap the models of mlx-lm and mlx-vlm."""
    metal.stand_in()
    from mlx_lm.models import gemma4_text
    from mlx_vlm.models.gemma4 import language

    for model in (gemma4_text.Model, language.LanguageModel):
        _wrap(model)


def _wrap(model: type) -> None:
    original = model.__call__
    (reading,), (decoding,) = tokenizer.ids(READING), tokenizer.ids(DECODING)
    steps_left = None

    def call(self, inputs=None, *args, **named):
        nonlocal steps_left
        ids = [] if inputs is None else inputs.tolist()
        if any(reading in row for row in ids):
            raise RuntimeError("injected while reading a prompt")
        if any(decoding in row for row in ids):
            steps_left = 3
        elif steps_left is not None:
            steps_left -= 1
            if steps_left == 0:
                steps_left = None
                raise RuntimeError("injected while decoding")
        return original(self, inputs, *args, **named)

    model.__call__ = call


if __name__ == "__main__":
    mlx_gemma4_patches.activate()
    server._sample_greedily()
    fail()
    server.run(*sys.argv[1:])
