"""A tiny model that says what a test wants, and a host's real server around it.

The model runs as it is; its logits are then replaced. What comes next in ``says`` depends on the
last token alone, so a script holds in batches, after prefill in chunks and with every cache.
``says_text`` may repeat itself, to one request at a time.

As a program, ``python -m tests.hosts.script HOST MODEL ARGUMENTS...`` is the host's server with the
ids in the model's script.json for a script; a test may rewrite the file between two requests.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4.tiny import VOCABULARY
from tests.hosts.server import run, serve

MODELS = {
    "mlx_lm": ["mlx_lm.models.gemma4_text:Model"],
    "mlx_vlm": [
        "mlx_vlm.models.gemma4.language:LanguageModel",
        "mlx_vlm.models.gemma4.gemma4:Model",
    ],
}
MODELS["vllm_mlx"] = MODELS["mlx_lm"] + MODELS["mlx_vlm"]
_FILE = "script.json"  # in the folder of the model


@contextlib.contextmanager
def says(host: str, ids: list[int]) -> Iterator[None]:
    """Within, the models of ``host`` say ``ids`` after any prompt, then the last one for ever.

    The ids are distinct, and the prompt ends with none of them.
    """
    with contextlib.ExitStack() as stack:
        for name in MODELS[host]:
            stack.enter_context(scripted(name, lambda inputs: _successors(ids)[inputs]))
        yield


@contextlib.contextmanager
def says_text(host: str, ids: Callable[[], list[int]]) -> Iterator[None]:
    """Within, the models of ``host`` say ``ids()``, of which any may come again, to any prompt.

    One request at a time; the first id is not the last of the prompt.
    """
    with contextlib.ExitStack() as stack:
        for name in MODELS[host]:
            stack.enter_context(scripted(name, _Text(ids)))
        yield


class _Text:
    """Follows a sequence by what it is given back: whatever is not the last id is a prompt."""

    def __init__(self, ids: Callable[[], list[int]]):
        self._ids = ids
        self._at = 0

    def __call__(self, inputs: mx.array) -> mx.array:
        ids = self._ids()
        goes_on = inputs.shape[1] == 1 and inputs[0, 0].item() == ids[self._at % len(ids)]
        self._at = self._at + 1 if goes_on else 0
        return mx.full(inputs.shape, ids[min(self._at, len(ids) - 1)])


@contextlib.contextmanager
def scripted(name: str, following: Callable[[mx.array], mx.array]) -> Iterator[None]:
    """Within, the model ``module:Class`` says ``following`` its input ids (B, L)."""
    module, _, attribute = name.partition(":")
    model = getattr(importlib.import_module(module), attribute)
    original = model.__call__

    @functools.wraps(original)
    def call(self, *args, **kwargs):
        made = original(self, *args, **kwargs)
        inputs = args[0] if args else kwargs.get("inputs")
        if inputs is None:  # only embeddings: whoever made them of ids is scripted too
            return made
        logits = getattr(made, "logits", made)
        said = following(inputs[:, -logits.shape[1] :])[..., None]
        wanted = 1e4 * (said == mx.arange(VOCABULARY)).astype(logits.dtype)
        if made is logits:
            return wanted
        made.logits = wanted
        return made

    model.__call__ = call
    try:
        yield
    finally:
        model.__call__ = original


def _successors(ids: list[int]) -> mx.array:
    following = dict(zip(ids, [*ids[1:], ids[-1]], strict=True))
    return mx.array([following.get(i, ids[0]) for i in range(VOCABULARY)])


@contextlib.contextmanager
def server(host: str, model: Path, *arguments: str) -> Iterator[Callable[..., dict]]:
    """The server of ``host`` with the model of a folder; it ends with the block.

    Yields ``answer(ids, path, **request)``: the JSON answer to a POST of ``request``, of a model
    that says ``ids``.
    """
    with serve(host, model, *arguments, program=__name__) as post:

        def answer(ids: list[int], path: str, **request: Any) -> dict:
            (model / _FILE).write_text(json.dumps(ids))
            return post(path, request)

        yield answer


def _serve(host: str, model: str, *arguments: str) -> None:
    file = Path(model) / _FILE
    mlx_gemma4_patches.activate()
    with contextlib.ExitStack() as stack:
        for name in MODELS[host]:
            stack.enter_context(
                scripted(name, lambda i: _successors(json.loads(file.read_bytes()))[i])
            )
        run(host, model, *arguments)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
