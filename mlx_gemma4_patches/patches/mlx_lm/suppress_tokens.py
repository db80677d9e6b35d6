"""Gemma 4 12B says ``<image|>`` and ``<audio|>`` in the middle of a text.

What the user sees: these markers in an answer, or an answer that goes astray behind one.

Why: the model's generation_config.json names them in ``suppress_tokens``; transformers then never
generates them. mlx-lm reads ``eos_token_id`` alone from that file.

The fix: ``load_model`` notes the tokens on the model, and whatever generates with that model,
alone, in batches or with a draft model, has a logits processor for them before the caller's. The
model's own logits stay as they are. So does a model that ``load_model`` did not load: nothing says
which file is its own. It can be deleted when mlx-lm reads ``suppress_tokens``.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from pathlib import Path

import mlx.core as mx

from ...gemma4 import suppressed_tokens, tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_LOAD = "mlx_lm.utils:load_model"
_STEPS = ("mlx_lm.generate:generate_step", "mlx_lm.generate:speculative_generate_step")
_INSERT = "mlx_lm.generate:BatchGenerator.insert_segments"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.generate import BatchGenerator, generate_step, speculative_generate_step
    from mlx_lm.utils import load_model

    only, prompt = 7, tiny.prompt(4)
    with tempfile.TemporaryDirectory() as folder:
        file = tiny.save("dense", Path(folder)) / "generation_config.json"
        others = [i for i in range(tiny.VOCABULARY) if i != only]
        file.write_text(json.dumps({"suppress_tokens": others}))
        model, _ = load_model(Path(folder))

    batch = BatchGenerator(model, max_tokens=2)
    batch.insert([prompt])
    said = {
        "alone": [t for t, _ in generate_step(mx.array(prompt), model, max_tokens=2)],
        "with a draft": [
            t for t, *_ in speculative_generate_step(mx.array(prompt), model, model, max_tokens=2)
        ],
        "in a batch": [r.token for _ in range(2) for r in batch.next_generated()],
    }
    wrong = [f"{token} ({how})" for how, tokens in said.items() for token in set(tokens) - {only}]
    if wrong:
        return Finding(True, f"generates suppressed tokens: {', '.join(wrong)}")
    return Finding(False, "generates no token that suppress_tokens names")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD, _noting)
    for step in _STEPS:
        surgery.wrap(step, _suppressing)
    surgery.wrap(_INSERT, _suppressing_in_batches)


def _noting(original):
    def load_model(model_path, *args, **kwargs):
        model, config = original(model_path, *args, **kwargs)
        if processor := suppressed_tokens.of_gemma4(Path(model_path)):
            suppressed_tokens.note(model, processor)
        return model, config

    return load_model


def _suppressing(original):
    def generate_step(prompt, model, *args, **kwargs):
        if processor := suppressed_tokens.noted(model):
            kwargs["logits_processors"] = [processor, *(kwargs.get("logits_processors") or ())]
        return original(prompt, model, *args, **kwargs)

    return generate_step


def _suppressing_in_batches(original):
    signature = inspect.signature(original)

    def insert_segments(self, *args, **kwargs):
        processor = suppressed_tokens.noted(self.model)
        if processor is None:
            return original(self, *args, **kwargs)
        call = signature.bind(self, *args, **kwargs)
        given = call.arguments.get("logits_processors")
        given = given or [self.logits_processors] * len(call.arguments["segments"])
        call.arguments["logits_processors"] = [[processor, *(own or ())] for own in given]
        return original(*call.args, **call.kwargs)

    return insert_segments


PATCH = Patch(
    id="mlx_lm.suppress_tokens",
    targets=(
        f"{_LOAD}(model_path)",
        *(f"{step}(prompt, model, *, logits_processors)" for step in _STEPS),
        f"{_INSERT}(self, segments, *, logits_processors)",
    ),
    apply=apply,
    probe=probe,
)
