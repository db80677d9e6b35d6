"""A prompt that is a stored prompt and its answer ends mlx-lm's server, or is never answered.

What the user sees: ``/v1/completions`` with the text of an earlier request and what was answered to
it, whatever the model. From 0.32.0 on every later request fails with "generation thread died"; up
to 0.31.3 this one and all later ones wait for ever.

Why: all of such a prompt is found in the prompt cache, and nothing is left that the model could be
asked about. The server hands its generator no token at all.

The fix: what the server finds for a whole prompt ends one token before it. Others who ask the
prompt cache find what they found. It can be deleted when mlx-lm leaves a token.
"""

from __future__ import annotations

from contextvars import ContextVar
from queue import Queue
from types import SimpleNamespace
from typing import Any, ClassVar

import mlx.core as mx

from ...gemma4 import tiny
from ...hosts.mlx_lm import chat
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, Patch
from ...surgery import Surgery

_GENERATE = "mlx_lm.server:ResponseGenerator._generate"
_FETCH = "mlx_lm.models.cache:LRUPromptCache.fetch_nearest_cache"

_serves: ContextVar[bool] = ContextVar("this thread generates for the server", default=False)


def probe() -> Finding:
    chat.require_gemma4()
    try:
        answer = answer_to_a_stored_prompt(text_model("dense"), tiny.prompt(5))
    except Exception as error:
        return Finding(True, f"the server's thread ends: {error or type(error).__name__}")
    return Finding(not answer, f"a prompt that is stored gets {len(answer)} tokens for an answer")


def answer_to_a_stored_prompt(model: Any, prompt: list[int]) -> list[int]:
    """The tokens, at most one, that the server answers to a prompt that is in its cache.

    Raises whatever would end the server's thread.
    """
    from mlx_lm import server
    from mlx_lm.models.cache import LRUPromptCache, make_prompt_cache

    class Generator(server.ResponseGenerator):
        def _generate(self):
            pass  # in the thread that it starts

        def _next_request(self, timeout=None):
            self._stop = not asked
            return asked.pop(0) if asked else None

    cache, stored, answers = make_prompt_cache(model), LRUPromptCache(), Queue()
    mx.eval(model(mx.array([prompt]), cache=cache))
    stored.insert_cache("it", prompt, cache)
    request = SimpleNamespace(request_type="text", prompt=" ".join(map(str, prompt)), messages=[])
    asked = [(answers, request, _arguments()), None, None]  # then it has time to answer
    server.ResponseGenerator._generate(Generator(_provider(model), stored))
    tokens = [getattr(answer, "token", None) for answer in list(answers.queue)]
    return [token for token in tokens if token is not None]


def _provider(model: Any) -> Any:
    tokenizer = _Numbers()
    settings = {"decode_concurrency": 1, "prompt_concurrency": 1, "prefill_step_size": 2048}
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        model_key="it",
        is_batchable=True,
        cli_args=SimpleNamespace(**settings, prompt_cache_bytes=None, kv_bits=None),
        load_default=lambda: None,
        load=lambda *names: (model, tokenizer),
        reset=lambda: None,
    )


class _Numbers:
    """A tokenizer and detokenizer of token ids with spaces between."""

    eos_token_ids = (1,)
    last_segment = ""
    response_transitions: ClassVar[dict[str, Any]] = {}

    def encode(self, text: str, **how: Any) -> list[int]:
        return [int(word) for word in text.split()]

    def convert_ids_to_tokens(self, token: int) -> str:
        return str(token)

    @property
    def detokenizer(self) -> _Numbers:
        return self

    def add_token(self, token: int) -> None:
        pass

    def finalize(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return False  # it has no thoughts, no tools and no template


def _arguments() -> Any:
    """A request's arguments: one token, the likeliest."""

    class Neutral(SimpleNamespace):
        def __getattr__(self, name):
            return None if name.endswith(("bias", "seed")) else 0

    return Neutral(
        model=SimpleNamespace(model="it", adapter=None, draft=None),
        sampling=Neutral(top_p=1.0),
        logits=Neutral(),
        stop_words=[],
        max_tokens=1,
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_GENERATE, _serving)
    surgery.wrap(_FETCH, _leaving_a_token)


def _serving(original):
    def _generate(self):
        before = _serves.set(True)
        try:
            return original(self)
        finally:
            _serves.reset(before)

    return _generate


def _leaving_a_token(original):
    def fetch_nearest_cache(self, model, tokens):
        cache, rest = original(self, model, tokens)
        if cache is None or rest or not tokens or not _serves.get():
            return cache, rest
        cache, rest = original(self, model, tokens[:-1])
        return cache, [*rest, tokens[-1]]

    return fetch_nearest_cache


PATCH = Patch(
    id="mlx_lm.prompt_stored_whole", targets=(_GENERATE, _FETCH), apply=apply, probe=probe
)
