"""Gemma 4 12B says ``<image|>`` and ``<audio|>`` in the middle of a text.

What the user sees: these markers in an answer, or an answer that goes astray behind one.

Why: the model's generation_config.json names them in ``suppress_tokens``; transformers then never
generates them. mlx-vlm reads the end of the text and the sampling from that file, not these.

The fix: ``load_model`` notes the tokens on the model, and whatever generates with that model, alone
or in batches, has a logits processor for them beside the caller's. Where a batch has no others, the
logits of its model give them no chance instead: before it calls a processor the host waits for the
token before, and the device for the host. 0.4.x has no processors in batches; there the sampler is
shown no such token. The model's own logits stay as they are. Not served are models that
``load_model`` did not load, and draft models. It can be deleted when mlx-vlm reads
``suppress_tokens``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
from importlib import import_module
from pathlib import Path

import mlx.core as mx

from ...gemma4 import suppressed_tokens, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_LOAD = "mlx_vlm.utils:load_model"
_MODULES = ("mlx_vlm.generate.ar", "mlx_vlm.generate")  # from 0.6.0, before
_STEP = "GenerationBatch._step"
_ROUNDS = (  # of a draft model and its target, from 0.6.0, in 0.5.0
    "mlx_vlm.speculative.utils:run_speculative_rounds",
    "mlx_vlm.speculative.utils:run_speculative_server_rounds",
    "mlx_vlm.generate:_mtp_rounds",
    "mlx_vlm.generate:_mtp_rounds_batch",
    "mlx_vlm.generate:_dflash_rounds",
    "mlx_vlm.generate:_dflash_rounds_batch",
)


def probe() -> Finding:
    from mlx_vlm.utils import load_model

    only, prompt = 7, mx.array([tiny.prompt(4)])
    with tempfile.TemporaryDirectory() as folder:
        file = tiny.save("dense", Path(folder)) / "generation_config.json"
        others = [i for i in range(tiny.VOCABULARY) if i != only]
        file.write_text(json.dumps({"suppress_tokens": others}))
        model = load_model(Path(folder))

    steps = _module().generate_step(prompt, model, None, None, max_tokens=2)
    said = {int(token) for token, *_ in steps} - {only}
    if said:
        return Finding(True, f"generates suppressed tokens: {', '.join(map(str, sorted(said)))}")
    return Finding(False, "generates no token that suppress_tokens names")


def _module():
    try:
        return import_module(_MODULES[0])
    except ModuleNotFoundError:
        return import_module(_MODULES[1])


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD, _noting)
    module = next(m for m in _MODULES if f"{m}:generate_step" in surgery.targets)
    surgery.wrap(f"{module}:generate_step", _suppressing)
    insert = surgery.resolve(f"{module}:BatchGenerator.insert")
    if "logits_processors" in inspect.signature(insert).parameters:
        surgery.wrap(f"{module}:BatchGenerator.insert", _suppressing_in_batches)
        if f"{module}:{_STEP}" in surgery.targets:
            surgery.wrap(f"{module}:{_STEP}", _without_waiting)
    else:
        surgery.wrap(f"{module}:BatchGenerator.__init__", _suppressing_before_sampling)
    for rounds in _ROUNDS:
        with contextlib.suppress(ImportError, AttributeError):
            surgery.wrap(rounds, _suppressing_in_rounds)


def _noting(original):
    def load_model(model_path, *args, **kwargs):
        model = original(model_path, *args, **kwargs)
        if processor := suppressed_tokens.of_gemma4(Path(model_path)):
            for part in (model, model.language_model):
                suppressed_tokens.note(part, processor)
        return model

    return load_model


def _suppressing(original):
    def generate_step(input_ids, model, *args, **kwargs):
        if processor := suppressed_tokens.noted(model):
            kwargs["logits_processors"] = [processor, *(kwargs.get("logits_processors") or ())]
        return original(input_ids, model, *args, **kwargs)

    return generate_step


def _suppressing_in_batches(original):
    signature = inspect.signature(original)

    def insert(self, *args, **kwargs):
        processor = suppressed_tokens.noted(self.model)
        if processor is None:
            return original(self, *args, **kwargs)
        call = signature.bind(self, *args, **kwargs)
        given = call.arguments.get("logits_processors")
        given = given or [self.logits_processors] * len(call.arguments["prompts"])
        call.arguments["logits_processors"] = [[processor, *(own or ())] for own in given]
        return original(*call.args, **call.kwargs)

    return insert


def _without_waiting(original):
    def _step(self):
        model = getattr(self, "_language_model", None)
        processors = getattr(self, "logits_processors", None)
        ours = suppressed_tokens.noted(model)
        if ours is None or not processors or any(own != [ours] for own in processors):
            return original(self)
        self._language_model, self.logits_processors = _Silenced(model, ours), []
        try:
            return original(self)
        finally:
            self._language_model, self.logits_processors = model, processors

    return _step


class _Silenced:
    """The host's language model, whose logits give suppressed tokens no chance."""

    def __init__(self, model, processor):
        self._model = model
        self._processor = processor

    def __call__(self, *args, **kwargs):
        output = self._model(*args, **kwargs)
        output.logits = self._processor((), output.logits)
        return output


def _suppressing_before_sampling(original):
    def __init__(self, model, *args, **kwargs):
        original(self, model, *args, **kwargs)
        if processor := suppressed_tokens.noted(model):
            self.sampler = _Sampler(self.sampler, processor)

    return __init__


def _suppressing_in_rounds(original):
    def rounds(model, *args, sampler, **kwargs):
        if processor := suppressed_tokens.noted(model):
            sampler = _Sampler(sampler, processor)
        return original(model, *args, sampler=sampler, **kwargs)

    return rounds


class _Sampler:
    """The host's sampler, which is shown no suppressed token."""

    def __init__(self, sampler, processor):
        self._sampler = sampler
        self._processor = processor

    def __call__(self, logprobs):
        return self._sampler(self._processor((), logprobs))

    def __getattr__(self, name):
        found = getattr(self._sampler, name)
        if name != "sample_target":  # which the host asks for at a position
            return found
        return lambda logprobs, **how: found(self._processor((), logprobs), **how)


PATCH = Patch(
    id="mlx_vlm.suppress_tokens",
    targets=(
        f"{_LOAD}(model_path)",
        *(
            f"{module}:{name}"
            for module in _MODULES
            for name in (
                "generate_step(input_ids, model, *, logits_processors)",
                "BatchGenerator.insert(self, prompts, *, logits_processors)",
                f"{_STEP}(self)",
            )
        ),
    ),
    apply=apply,
    probe=probe,
)
