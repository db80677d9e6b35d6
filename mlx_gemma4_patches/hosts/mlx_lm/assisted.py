"""Decoding with an assistant: it drafts, the target verifies, and the text is the target's own.

A block is the last token and the drafts behind it. The target reads it in one step, and its own
choice at each place is sampled as plain decoding samples it: one place after the other, with the
logits processors that have seen the tokens before it, and with the same random numbers. A draft is
accepted if it is that choice, so the distribution is the target's whatever the drafts are, and with
a seed the text is the one that plain decoding gives. The first choice that is no draft ends the
block; what the caches hold behind it is dropped.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mlx.core as mx

from ...gemma4.cache_tail import drop_tail
from ...gemma4.draft_plan import DraftPlan
from ...settings import log

_here = threading.local()


@contextlib.contextmanager
def hearing() -> Iterator[list[mx.array]]:
    """Collects the hidden states of text models that run meanwhile, in this thread."""
    before, _here.heard = getattr(_here, "heard", None), []
    try:
        yield _here.heard
    finally:
        _here.heard = before


def hear(hidden: mx.array) -> None:
    """A text model's (1, tokens, hidden) before its head."""
    if getattr(_here, "heard", None) is not None:
        _here.heard.append(hidden)


class Target:
    """A Gemma 4 and its caches, which can go back, and what its assistant may see of them."""

    def __init__(self, model: Any, caches: list[Any], quantize: Callable[[list[Any]], None]):
        self._model = model
        self._text = getattr(model, "language_model", model)
        self._quantize = quantize
        self.caches = caches
        self._hidden: mx.array | None = None

    @property
    def length(self) -> int:
        """Tokens in the caches."""
        return self.caches[0].offset

    @property
    def can_be_drafted_for(self) -> bool:
        return self._hidden is not None

    def read(self, tokens: mx.array) -> mx.array:
        """(tokens,) -> logits, (tokens, vocabulary)."""
        with hearing() as heard:
            logits = self._model(tokens[None], cache=self.caches)
        self._quantize(self.caches)
        self._hidden = heard[-1]
        return logits[0]

    def forget(self, count: int) -> None:
        """Drop the last ``count`` tokens of a step of more."""
        if count < 1:
            return
        for cache in self.caches:
            if not cache.is_trimmable():
                drop_tail(cache, count)
            cache.trim(count)
        self._hidden = self._hidden[:, :-count]

    def embed(self, token: mx.array) -> mx.array:
        inner = self._text.model
        return inner.embed_tokens(token) * inner.embed_scale

    def last_hidden(self) -> mx.array:
        return self._hidden[:, -1:]

    def keys_values(self) -> dict[str, tuple[mx.array, mx.array]]:
        """Keys and values of the last layer of each type that has any, in order."""
        layers = zip(self._text.layers, self.caches, strict=False)  # KV-shared ones come last
        last = {layer.layer_type: cache for layer, cache in layers}
        return {kind: _in_order(cache, kind) for kind, cache in last.items()}


def _in_order(cache: Any, kind: str) -> tuple[mx.array, mx.array]:
    pair = cache.keys, cache.values
    if hasattr(cache, "bits"):
        how = {"group_size": cache.group_size, "bits": cache.bits}
        return tuple(
            mx.dequantize(*(part[..., : cache.offset, :] for part in parts), **how)
            for parts in pair
        )
    if not hasattr(cache, "max_size"):
        return tuple(part[..., : cache.offset, :] for part in pair)
    pair = tuple(cache._temporal_order(part) for part in pair)
    if kind == "sliding_attention":  # transformers lets the query see one key more than the window
        return tuple(part[..., -(cache.max_size + 1) :, :] for part in pair)
    return pair


def assisted_generate_step(
    prompt: mx.array,
    model: Any,
    draft_model: Any,
    stream: Any = None,
    *,
    num_draft_tokens: int,
    max_tokens: int,
    sampler: Callable[[mx.array], mx.array] | None,
    logits_processors: list[Callable[[mx.array, mx.array], mx.array]] | None,
    prompt_cache: list[Any] | None,
    prefill_step_size: int,
    kv_bits: int | None,
    kv_group_size: int,
    quantized_kv_start: int,
    shows_prompt: bool,
) -> Iterator[tuple[int, mx.array, bool]]:
    """``speculative_generate_step`` of mlx-lm with an assistant as the draft model.

    Args:
        shows_prompt: whether this mlx-lm shows logits processors all of a prompt, or its last
            token.

    Yields:
        A token, its logprobs (vocabulary,), and whether it was drafted.

    When it ends, or is closed, the caller's caches hold the prompt and every token it gave, as
    those of plain decoding do.
    """
    from mlx_lm.models.cache import make_prompt_cache

    host = sys.modules["mlx_lm.generate"]  # the attribute of the package is a function
    stream = stream or host.generation_stream
    quantize = partial(
        host.maybe_quantize_kv_cache,
        quantized_kv_start=quantized_kv_start,
        kv_group_size=kv_group_size,
        kv_bits=kv_bits,
    )
    caches = make_prompt_cache(model) if prompt_cache is None else prompt_cache
    target = Target(model, caches, quantize)
    sampler = sampler or partial(mx.argmax, axis=-1)
    plan = DraftPlan(num_draft_tokens)
    tokens = prompt.astype(mx.uint32)
    with mx.stream(stream):
        _prefill(target, tokens, prefill_step_size)
    if not shows_prompt:
        tokens = tokens[-1:]
    kept = target.length  # tokens in the caches that are the text's
    end, given = kept + 1, 0  # the last token is not read yet
    try:
        while given != max_tokens:
            start = time.perf_counter()
            with mx.stream(stream):
                target.forget(target.length - (end - 1))
                count = plan.drafts() if target.can_be_drafted_for else 0
                if max_tokens > 0:  # a block gives one token more than it has drafts
                    count = min(count, max_tokens - given - 1)
                drafts = _draft(target, draft_model, tokens[-1:], count)
                choose = _choose_in_turn if logits_processors else _choose_at_once
                said, logprobs = choose(target, tokens, drafts, sampler, logits_processors)
            kept += len(said)
            plan.record(count, len(said) - 1, time.perf_counter() - start)
            tokens = mx.concatenate([tokens, mx.array(said, mx.uint32)])
            for place, token in enumerate(said):
                given, end = given + 1, end + 1
                yield token, logprobs[place], place < len(said) - 1
    except GeneratorExit:
        pass
    target.forget(target.length - min(kept, end))
    if prompt_cache is not None and target.length < end:
        with mx.stream(stream):
            target.read(tokens[-1:])
            mx.eval([cache.state for cache in caches])
    log.info("%s", plan)


def _prefill(target: Target, tokens: mx.array, step_size: int) -> None:
    """Read all but the last token."""
    while tokens.size > 1:
        count = min(step_size, tokens.size - 1)
        target.read(tokens[:count])
        mx.eval([cache.state for cache in target.caches])
        tokens = tokens[count:]
        mx.clear_cache()


def _draft(target: Target, assistant: Any, token: mx.array, count: int) -> mx.array:
    if count == 0:
        return mx.array([], mx.uint32)
    drafts = assistant.draft(
        target.embed,
        token[None],
        target.last_hidden(),
        target.keys_values(),
        target.length,
        count,
    )
    return drafts.astype(mx.uint32)


def _choose_at_once(
    target: Target, tokens: mx.array, drafts: mx.array, sampler: Any, _: Any
) -> tuple[list[int], mx.array]:
    """The choices up to the first that is no draft; all are made before any is looked at."""
    logits = target.read(mx.concatenate([tokens[-1:], drafts]))
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    choices, states = [], []
    for place in range(drafts.size + 1):
        choices.append(sampler(logprobs[place : place + 1]))
        states.append(mx.random.state[0])
    chosen = mx.concatenate(choices)
    mx.eval(chosen, drafts, logprobs, states)
    chosen, guessed = chosen.tolist(), drafts.tolist()
    accepted = 0
    while accepted < len(guessed) and chosen[accepted] == guessed[accepted]:
        accepted += 1
    high, low = states[accepted].tolist()
    mx.random.seed(high << 32 | low)  # as if the others had not been made
    return chosen[: accepted + 1], logprobs


def _choose_in_turn(
    target: Target, tokens: mx.array, drafts: mx.array, sampler: Any, processors: list[Any]
) -> tuple[list[int], list[mx.array]]:
    """The same with logits processors, which may remember the tokens that they are shown."""
    logits = target.read(mx.concatenate([tokens[-1:], drafts]))
    said: list[int] = []
    rows = []
    for place, guess in enumerate([*drafts.tolist(), None]):
        row = logits[place : place + 1]
        shown = mx.concatenate([tokens, mx.array(said, mx.uint32)])
        for processor in processors:
            row = processor(shown, row)
        logprobs = row - mx.logsumexp(row, axis=-1, keepdims=True)
        said.append(sampler(logprobs).item())
        rows.append(logprobs[0])
        if said[-1] != guess:
            break
    return said, rows
