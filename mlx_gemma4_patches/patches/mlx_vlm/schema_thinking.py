"""With thinking on, an answer that must be JSON is free text, or comes without a thought.

What the user sees: a request with ``response_format`` and ``enable_thinking`` to mlx-vlm's server
is answered in prose, and nothing says that the schema was left out. Up to 0.6.15 the answer is
JSON, but the model is never let think; behind the result of a tool the JSON is in its reasoning.

Why: the server waits for ``</think>`` before it applies a schema, and Gemma 4 ends its thoughts
with ``<channel|>``. A client that names Gemma 4's markers meets the same fault whenever the model
answers without a thought, as it may. Up to 0.6.15 the server waits only if the prompt opens one.

The fix: for a Gemma 4 the schema is held from the first token of the answer on. The first token of
all may begin a thought or the answer; in a thought all tokens are allowed. It can be deleted when
mlx-vlm knows Gemma 4's markers and lets an answer begin without a thought.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ...gemma4.channels import END_ID, OPENING_ID, opens_thought
from ...hosts.mlx_vlm.models import says_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MAKE = "mlx_vlm.server.generation:ResponseGenerator._make_logits_processors"
_ANSWER, _OTHER, _VOCABULARY = 7, 8, 128  # of the probe: what its schema demands, another token
_PROMPT, _OPENED_PROMPT = [2, 105, 4368], [2, 105, 4368, OPENING_ID]


class AfterThought:
    """A schema's logits processor, for an answer that a thought may come before.

    Args:
        schema: the processor. It is called first for the first token it constrains, and then with
            each token behind that.
        in_thought: whether the prompt has opened a thought.
    """

    def __init__(self, schema: Callable, in_thought: bool):
        self._schema = schema
        self._in_thought = in_thought
        self.reset()

    def reset(self) -> None:
        self._state = "in thought" if self._in_thought else "at start"
        self._own = _copy(self._schema)
        self._answer: list[int] = []  # behind the token that the schema saw first

    def clone(self) -> AfterThought:
        return AfterThought(_copy(self._schema), self._in_thought)

    def __call__(self, input_ids: mx.array, logits: mx.array) -> mx.array:
        return self.process_last_token(int(input_ids.reshape(-1)[-1].item()), logits)

    def process_last_token(self, last_token: int, logits: mx.array) -> mx.array:
        """Logits (1, vocabulary) of the token behind ``last_token``; -inf where not allowed."""
        if self._state == "at start":
            self._state = "after start"
            opening = mx.arange(logits.shape[-1]) == OPENING_ID
            return mx.where(opening, logits, self._constrained(last_token, logits))
        if self._state == "after start":
            self._state = "in answer"
            if last_token == OPENING_ID:
                self._state = "in thought"
                self._own = _copy(self._schema)  # it has seen a token that is not its answer's
                self._answer = []
        if self._state == "in thought":
            if last_token != END_ID:
                return logits
            self._state = "in answer"
        return self._constrained(last_token, logits)

    def _constrained(self, last_token: int, logits: mx.array) -> mx.array:
        if hasattr(self._own, "process_last_token"):
            return self._own.process_last_token(last_token, logits)
        self._answer.append(last_token)
        return self._own(mx.array(self._answer), logits)


def _copy(processor: Any) -> Any:
    return processor.clone() if hasattr(processor, "clone") else processor


def probe() -> Finding:
    none = NotApplicable("this mlx-vlm applies a schema to thoughts as well, or knows none")
    try:
        from mlx_vlm.server.generation import GenerationArguments, ResponseGenerator
    except ImportError:
        raise none from None
    if "input_ids" not in inspect.signature(ResponseGenerator._make_logits_processors).parameters:
        raise none
    server = ResponseGenerator.__new__(ResponseGenerator)
    server.model = SimpleNamespace(config=SimpleNamespace(model_type="gemma4"))
    server.tokenizer = SimpleNamespace(encode=_encode)

    def allowed(prompt: list[int], *said: int) -> set[int]:
        """The tokens that may come behind the prompt and those said."""
        arguments = GenerationArguments(enable_thinking=True, logits_processors=[_Demands()])
        (processor,) = server._make_logits_processors(arguments, mx.array([prompt]))
        logits, zeros = None, mx.zeros((1, _VOCABULARY))
        for at in range(len(said) + 1):
            logits = processor(mx.array([*prompt, *said[:at]]), zeros)
        return {token for token, value in enumerate(logits[0].tolist()) if value == 0}

    everything = set(range(_VOCABULARY))
    cases = {
        "an answer without a thought": (allowed(_PROMPT), {OPENING_ID, _ANSWER}),
        "a thought": (allowed(_PROMPT, OPENING_ID, _OTHER), everything),
        "an answer behind a thought": (allowed(_PROMPT, OPENING_ID, _OTHER, END_ID), {_ANSWER}),
        "a thought that the prompt opens": (allowed(_OPENED_PROMPT), everything),
    }
    wrong = [name for name, (found, right) in cases.items() if found != right]
    if wrong:
        return Finding(True, f"a schema is applied wrongly to {', to '.join(wrong)}")
    return Finding(False, "a schema is applied to all of an answer and to no thought")


class _Demands:
    """A schema that allows one token."""

    def __call__(self, input_ids: mx.array, logits: mx.array) -> mx.array:
        return mx.where(mx.arange(logits.shape[-1]) == _ANSWER, logits, -mx.inf)


def _encode(text: str, add_special_tokens: bool = True) -> list[int]:
    return [{"<|channel>": OPENING_ID, "<channel|>": END_ID}.get(text, _OTHER + 1)]


def apply(surgery: Surgery) -> None:
    surgery.wrap(_MAKE, _for_gemma4)


def _for_gemma4(original: Callable) -> Callable:
    def _make_logits_processors(self, args, input_ids=None):
        schemas = args.logits_processors
        if not (schemas and args.enable_thinking and says_gemma4(getattr(self, "model", None))):
            return original(self, args, input_ids)
        others = original(self, dataclasses.replace(args, logits_processors=None), input_ids)
        opened = input_ids is not None and opens_thought(input_ids.reshape(-1).tolist())
        return [*others, *(AfterThought(schema, opened) for schema in schemas)]

    return _make_logits_processors


PATCH = Patch(id="mlx_vlm.schema_thinking", targets=(_MAKE,), apply=apply, probe=probe)
