"""Gemma 4 12B says ``<image|>`` and ``<audio|>`` in the middle of a text.

What the user sees, with continuous batching: these markers in an answer, or an answer that goes
astray behind one.

Why: the model's generation_config.json names them in ``suppress_tokens``; transformers then never
generates them. vllm-mlx does not read it.

The fix: the generator of batches sees its model through a view in whose logits they have no chance.
Without batches, and with text models, it is mlx-vlm and mlx-lm that generate: they have patches of
their own. It can be deleted when vllm-mlx reads ``suppress_tokens``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx

from ...gemma4 import suppressed_tokens
from ...hosts.vllm_mlx import batches
from ...patch import Finding, Patch
from ...surgery import Surgery

_GENERATOR = "vllm_mlx.mllm_batch_generator:MLLMBatchGenerator"
_DRAFT = 16  # the last positions are sampled from: one, or as many as a draft has


class _Ascending:
    """A model that finds each of four tokens as likely as it is large."""

    model_type = "gemma4"

    @property
    def language_model(self):
        return self

    def __call__(self, ids, cache=None, **inputs):
        return mx.broadcast_to(mx.arange(4.0), (*ids.shape, 4))


def probe() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        config = {"model_type": "gemma4", "text_config": {"vocab_size": 4}}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        suppressed = json.dumps({"suppress_tokens": [3]})
        (Path(folder) / "generation_config.json").write_text(suppressed)
        processor = SimpleNamespace(tokenizer=SimpleNamespace(name_or_path=folder))
        generator = batches.generator(_Ascending(), processor=processor)
    try:
        sampled = generator._step(mx.zeros((1, 1), mx.int32), cache=[])[0].item()
    finally:
        generator.close()
    measured = f"with 3 in suppress_tokens the next token is {sampled}, the likeliest but 3 is 2"
    return Finding(sampled != 2, measured)


def apply(surgery: Surgery) -> None:
    def make(original):
        def __init__(self, model, processor, *args, **named):
            original(self, model, processor, *args, **named)
            tokenizer = getattr(processor, "tokenizer", processor)
            folder = getattr(tokenizer, "name_or_path", None)
            suppress = suppressed_tokens.of_gemma4(Path(folder)) if folder else None
            if suppress:
                self.model = _View(self.model, suppress)
                self.language_model = _View(self.language_model, suppress)

        return __init__

    surgery.wrap(f"{_GENERATOR}.__init__", make)


class _View:
    """A model, with logits (B, L, vocabulary) or an output that has them, as it may speak."""

    def __init__(self, model, suppress):
        self._model = model
        self._suppress = suppress

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, *args, **named):
        output = self._model(*args, **named)
        if not hasattr(output, "logits"):
            return self._suppressed(output)
        output.logits = self._suppressed(output.logits)
        return output

    def _suppressed(self, logits):
        if logits.shape[1] > _DRAFT:  # a prompt
            logits[:, -1:] = self._suppress(None, logits[:, -1:])
            return logits
        return self._suppress(None, logits)


PATCH = Patch(
    id="vllm_mlx.suppress_tokens",
    targets=(f"{_GENERATOR}.__init__(self, model, processor)", f"{_GENERATOR}._step"),
    apply=apply,
    probe=probe,
)
